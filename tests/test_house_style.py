# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every file, whoever writes it: header, size, nothing unsafe, nothing of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HEADER = ["# Copyright (c) monai_anomaly contributors", "# SPDX-License-Identifier: Apache-2.0"]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60

NOT_OURS = {".git", ".venv", "venv", "runs", "build", "dist", "_build", "node_modules", "__pycache__"}
TEXT = {
    ".py",
    ".md",
    ".rst",
    ".txt",
    ".toml",
    ".json",
    ".conf",
    ".cff",
    ".yaml",
    ".yml",
    ".html",
    ".css",
    ".js",
    ".csv",
    ".in",
}
TEXT_NAMES = {"Makefile", "LICENSE", "NOTICE", "run"}

# Put together here, so that this file does not contain what it looks for.
MACHINE = ["work", "tmp/w", "opt/wheels", "opt/pypi"]
HOSTS = ["py" + r"pi\.org", "python" + r"hosted\.org", "download" + r"\.pytorch\.org", "registry" + r"\.npmjs"]
FORBIDDEN = re.compile("|".join([r"(?<![\w.~<}-])/(?:" + "|".join(MACHINE) + r")(?:/|\b)", *HOSTS]))


def files() -> Iterator[Path]:
    """Every text file of the repository that is written by hand or committed."""
    for path in sorted(REPOSITORY.rglob("*")):
        parts = path.relative_to(REPOSITORY).parts
        hidden = any(part in NOT_OURS or part.endswith((".egg-info", "_cache")) for part in parts)
        if not hidden and path.is_file() and (path.suffix in TEXT or path.name in TEXT_NAMES):
            yield path


PYTHON = [path for path in files() if path.suffix == ".py"]
OURS = [path for path in PYTHON if path.is_relative_to(REPOSITORY / "monai_anomaly")]


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def code_lines(function: ast.AST) -> int:
    """Lines of a function without its docstring."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    first = function.body[0]
    docstring = ast.get_docstring(function) is not None
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1 if docstring else 0)


def unsafe(source: str) -> list[str]:
    """What a module does that loads or runs code it should not: pickles, torch.hub, eval."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = f"line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            names |= {f"{getattr(node, 'module', None)}.{alias.name}" for alias in node.names}
            found += [line + f"imports {bad}" for bad in ("pickle", "dill", "joblib", "torch.hub") if bad in names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.hub":
            found.append(line + "uses torch.hub")
        elif isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            called = ast.unparse(node.func)
            if called in {"eval", "exec"}:
                found.append(line + f"calls {called}")
            if called == "torch.load" and ast.unparse(given.get("weights_only", ast.Constant(None))) != "True":
                found.append(line + "torch.load without weights_only=True")
            if "weights_only" in given and ast.unparse(given["weights_only"]) == "False":
                found.append(line + "weights_only is False")
            if "allow_pickle" in given and ast.unparse(given["allow_pickle"]) != "False":
                found.append(line + "allow_pickle")
    return found


def test_files_are_found() -> None:
    assert len(OURS) > 20
    assert REPOSITORY / "Makefile" in set(files())


def test_every_python_file_has_the_licence_header() -> None:
    assert not [name(path) for path in PYTHON if path.read_text("utf-8").splitlines()[:2] != HEADER]


def test_every_python_file_postpones_annotations() -> None:
    without = []
    for path in PYTHON:
        body = ast.parse(path.read_text("utf-8")).body
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:]
        if not body or ast.unparse(body[0]) != "from __future__ import annotations":
            without.append(name(path))
    assert not without


def test_no_file_is_too_long() -> None:
    lengths = {name(path): len(path.read_text("utf-8").splitlines()) for path in PYTHON}
    assert not {file: length for file, length in lengths.items() if length > LONGEST_FILE}


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in PYTHON if "tests" in path.relative_to(REPOSITORY).parts and path.stem != "conftest"]
    assert not {name for name in names if names.count(name) > 1}, "the tests are no packages: pytest would mix them up"


def test_no_function_is_too_long() -> None:
    too_long = []
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > LONGEST_FUNCTION:
                too_long.append(f"{name(path)}:{node.lineno} {node.name}: {code_lines(node)} lines")
    assert not too_long


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in files():
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            found += [f"{name(path)}:{number}: {match.group()}" for match in FORBIDDEN.finditer(line)]
    assert not found, "\n".join(found)


def test_the_package_loads_and_runs_nothing_unsafe() -> None:
    found = [f"{name(path)}: {text}" for path in OURS for text in unsafe(path.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_no_configuration_turns_weights_only_off() -> None:
    pattern = re.compile(r"weights_only\W{0,4}[=:]\s*(?:false|0)", re.IGNORECASE)
    configurations = [path for path in files() if path.suffix == ".json" and "tests" not in path.parts]
    assert not [name(path) for path in configurations if pattern.search(path.read_text("utf-8"))]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import hub",
        "import torch.hub",
        "torch.hub.load('a', 'b')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "load(path, weights_only=False)",
        "eval('1')",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_something_unsafe_is_found(source: str) -> None:
    assert unsafe(source)


@pytest.mark.parametrize(
    "source", ["torch.load(path, weights_only=True)", "network.eval()", "np.load(path)", "x = 'torch.hub'"]
)
def test_something_safe_is_not_reported(source: str) -> None:
    assert not unsafe(source)


@pytest.mark.parametrize(
    "text", ["cd /" + "work/main", "see '/" + "tmp/w/x'", "https://" + "py" + "pi.org/simple", "/" + "opt/wheels"]
)
def test_a_machine_path_is_found(text: str) -> None:
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize(
    "text",
    ["/path/to/work/x", "a/work/b", "{root}/" + "work/x", "~/" + "work/x", "framework/", "https://host.org/work-x"],
)
def test_an_ordinary_path_is_not_reported(text: str) -> None:
    assert not FORBIDDEN.search(text)
