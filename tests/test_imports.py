# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The floors of the house: which folder of the package may import which (the table is in CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "monai_anomaly"

FLOOR_0 = {"utils"}
FLOORS_0_1 = FLOOR_0 | {"functional", "networks/blocks"}
FLOORS_0_3 = FLOORS_0_1 | {
    "networks",
    "networks/nets",
    "networks/pretrained",
    "networks/maps",
    "losses",
    "transforms",
    "metrics",
    "inferers",
    "data",
    "data/audit",
    "visualize",
}
FLOORS_0_4 = FLOORS_0_3 | {"engines", "handlers"}

# What a folder may import besides itself. Every other folder of the package is above it or beside it.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),  # monai_anomaly/__init__.py: importing the package must cost nothing
    "utils": set(),
    "functional": FLOOR_0,
    "networks/blocks": FLOOR_0 | {"functional"},
    "networks/nets": FLOORS_0_1,
    "networks/pretrained": FLOORS_0_1 | {"networks/nets"},
    "networks/maps": FLOORS_0_1,
    "networks": {"networks/blocks", "networks/nets", "networks/pretrained", "networks/maps"},
    "losses": FLOORS_0_1,
    "transforms": FLOORS_0_1,
    "metrics": FLOORS_0_1,
    "inferers": FLOORS_0_1 | {"networks/maps"},
    "data": FLOORS_0_1 | {"transforms", "data/audit"},
    "data/audit": FLOORS_0_1 | {"transforms", "data"},
    "visualize": FLOORS_0_1 | {"metrics"},
    "engines": FLOORS_0_3,
    "handlers": FLOORS_0_3,
    "benchmark": FLOORS_0_4,
    "bundle": FLOORS_0_4 | {"bundle/lint"},
    "bundle/lint": FLOOR_0 | {"bundle"},
    "cli": FLOORS_0_4 | {"benchmark", "bundle", "bundle/lint"},
}
ENTRANCE = "cli"  # the floor of what runs only as a program: a __main__, in any folder


def modules_of(root: Path) -> dict[str, Path]:
    """Every module below ``root`` by dotted name; a package goes by the name of its folder."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def folder_of(module: str, modules: dict[str, Path]) -> str:
    """The folder of ``MAY_IMPORT`` that a module lies in: the longest one that leads to it."""
    if module.endswith(".__main__"):
        return ENTRANCE
    parts = module.split(".")[1:]
    if module in modules and modules[module].name != "__init__.py":
        parts = parts[:-1]
    for length in range(len(parts), 0, -1):
        folder = "/".join(parts[:length])
        if folder in MAY_IMPORT:
            return folder
    return "/".join(parts)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The dotted name that ``from x import`` means, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    base = module.split(".") if is_package else module.split(".")[:-1]
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _imported_by_name(node: ast.Call) -> str | None:
    """The module named in ``import_module("x")``, ``optional_import("x")`` or ``__import__("x")``."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in {"import_module", "optional_import", "lazy_import", "__import__"} and node.args:
        first = node.args[0]
        return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
    return None


def _is_entrance(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def imported_names(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a module imports, in functions and under TYPE_CHECKING too.

    What it does only where it is run as a program is left out.
    """
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _is_entrance(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and (name := _imported_by_name(node)):
            yield node.lineno, name


def imported_modules(source: str, module: str, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and name of the package's own modules that are imported (``from x import name`` leads to ``x``)."""
    is_package = modules[module].name == "__init__.py" if module in modules else False
    for line, name in imported_names(source, module, is_package):
        if name.split(".")[0] != PACKAGE:
            continue
        while name not in modules and "." in name:
            name = name.rsplit(".", 1)[0]
        yield line, name


def violations(source: str, module: str, modules: dict[str, Path]) -> list[str]:
    """The imports of a module that go upward or sideways."""
    folder = folder_of(module, modules)
    if folder not in MAY_IMPORT:
        return [f"{module}: the folder {folder!r} has no floor, give it one in {Path(__file__).name}"]
    found = []
    for line, name in imported_modules(source, module, modules):
        other = folder_of(name, modules)
        if name != PACKAGE and other != folder and other not in MAY_IMPORT[folder]:
            found.append(f"{module}:{line}: {folder or PACKAGE!r} may not import {other!r} ({name})")
    return found


@pytest.fixture(scope="module")
def modules() -> dict[str, Path]:
    return modules_of(REPOSITORY)


def test_every_import_goes_down(modules: dict[str, Path]) -> None:
    assert len(modules) > 20, f"too few modules found below {REPOSITORY / PACKAGE}"
    found = [text for name, path in modules.items() for text in violations(path.read_text("utf-8"), name, modules)]
    assert not found, "\n".join(found)


def test_every_folder_of_the_table_exists(modules: dict[str, Path]) -> None:
    missing = [folder for folder in MAY_IMPORT if ".".join(filter(None, [PACKAGE, *folder.split("/")])) not in modules]
    assert not missing


def test_no_module_imports_itself_through_others(modules: dict[str, Path]) -> None:
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        others = {other for _, other in imported_modules(path.read_text("utf-8"), name, modules)}
        graph[name] = others - {name, PACKAGE}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


PLANTED = {
    "upward, absolute": ("functional.planted", "import monai_anomaly.losses", "losses"),
    "upward, from": ("functional.planted", "from monai_anomaly.networks.blocks.memory import x", "networks/blocks"),
    "upward, from the package": ("utils.planted", "from monai_anomaly import functional", "functional"),
    "sideways between wings": ("networks.maps.planted", "from ..nets import x", "networks/nets"),
    "upward from a wing": ("bundle.lint.planted", "from ...engines import x", "engines"),
    "upward, relative": ("networks.blocks.planted", "from ..nets import x", "networks/nets"),
    "upward, relative from a package": ("networks.blocks", "from ...losses import x", "losses"),
    "sideways": ("losses.planted", "from ..metrics import x", "metrics"),
    "sideways on floor 4": ("handlers.planted", "from monai_anomaly.engines import x", "engines"),
    "sideways on floor 5": ("bundle.planted", "from ..benchmark import x", "benchmark"),
    "a function hides it": ("data.planted", "def f():\n    from ..visualize import x", "visualize"),
    "type checking hides it": ("inferers.planted", "if TYPE_CHECKING:\n    from ..losses import x", "losses"),
    "a string hides it": ("utils.planted", "import_module('monai_anomaly.functional')", "functional"),
    "optional_import hides it": ("metrics.planted", "x, _ = optional_import('monai_anomaly.data')", "data"),
    "upward to the command line": ("bundle.planted", "from ..cli.runs import x", "cli"),
    "another program": ("data.planted", "if __name__ == 'data':\n    from ..cli.data import x", "cli"),
    "the root grows": ("", "from .functional import cka", "functional"),
}


@pytest.mark.parametrize(("module", "source", "target"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found(modules: dict[str, Path], module: str, source: str, target: str) -> None:
    name = ".".join(filter(None, [PACKAGE, module]))
    planted = {**modules, name: modules.get(name, Path(f"{name.rsplit('.', 1)[-1]}.py"))}
    found = violations(source, name, planted)
    assert len(found) == 1
    assert f"may not import '{target}'" in found[0]


ALLOWED = {
    "data may use transforms": ("data.planted", "from ..transforms import x"),
    "visualize may use metrics": ("visualize.planted", "from monai_anomaly.metrics import x"),
    "blocks may use functional": ("networks.blocks.planted", "from ...functional.errors import x"),
    "bundle may use engines": ("bundle.planted", "from monai_anomaly.engines import x"),
    "one's own folder": ("losses.planted", "from .repulsion_loss import x"),
    "the version": ("bundle.planted", "from monai_anomaly import __version__"),
    "an entrance": ("data.__main__", "from ..cli.data import main"),
    "a module that is run": ("transforms.planted", "if __name__ == '__main__':\n    from ..cli.gallery import x"),
    "the command line may use all": ("cli.planted", "from ..bundle.lint import x\nfrom ..benchmark.plan import y"),
    "other packages": ("utils.planted", "import monai.losses\nfrom torch.utils import data"),
}


@pytest.mark.parametrize(("module", "source"), ALLOWED.values(), ids=ALLOWED.keys())
def test_a_downward_import_is_not_reported(modules: dict[str, Path], module: str, source: str) -> None:
    name = f"{PACKAGE}.{module}"
    assert violations(source, name, {**modules, name: Path("planted.py")}) == []


def test_a_new_folder_needs_a_floor(modules: dict[str, Path]) -> None:
    name = f"{PACKAGE}.shed.planted"
    (found,) = violations("", name, {**modules, name: Path("planted.py")})
    assert "has no floor" in found


def test_the_table_of_the_contributing_page_is_this_one() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| [0-6] \| `([^|]*)` \|", text, flags=re.MULTILINE)
    assert set(rows) == set(MAY_IMPORT) - {"", "networks"}
