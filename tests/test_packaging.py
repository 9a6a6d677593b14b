# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What is declared is what is used, and the wheel works where there is no checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "monai_anomaly"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

# Distributions whose module has another name.
DISTRIBUTION = {
    "PIL": "pillow",
    "ignite": "pytorch-ignite",
    "itk": "itk-core",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Dependencies that nothing imports by name, and the text in the package or its recipes that cannot do without them.
THROUGH_MONAI = {
    "einops": r"DiffusionModelUNet",
    "fire": r"monai\.bundle",  # the command line of monai.bundle
    "itk-io": r"ITKReader",  # the file formats, GDCM's among them, which itk-core imports where they are needed
    "nibabel": r"NibabelReader",
    "tensorboard": r"from monai\.handlers import TensorBoard",
}
# Imported where installed only; nobody needs them.
OPTIONAL = {"freia", "onnx", "onnxruntime", "onnxscript", "timm"}
OPTIONAL |= {"huggingface-hub", "safetensors"}  # come with timm


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: Iterable[str]) -> dict[str, Requirement]:
    return {canonical(Requirement(text).name): Requirement(text) for text in requirements}


def imported_distributions(*folders: Path) -> set[str]:
    """Distributions behind the absolute imports (and ``optional_import`` calls) of all modules in the folders."""
    names = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module or "")
            elif (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in {"optional_import", "import_module"}
                and node.args
            ):
                names.add(str(getattr(node.args[0], "value", "")))
    roots = (
        {name.split(".")[0] for name in names}
        - set(sys.stdlib_module_names)
        - {"", "monai_anomaly", "tests", "tomllib"}
    )
    local = {path.stem for folder in folders for path in folder.rglob("*.py")}
    return {canonical(DISTRIBUTION.get(root, root)) for root in roots if root not in local or root in DISTRIBUTION}


def test_every_import_of_the_package_is_declared() -> None:
    assert imported_distributions(PACKAGE) - set(declared(PROJECT["dependencies"])) - OPTIONAL == set()


def test_every_dependency_is_used() -> None:
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".json"}]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    through_monai = {name for name, pattern in THROUGH_MONAI.items() if re.search(pattern, text)}
    assert set(declared(PROJECT["dependencies"])) - imported_distributions(PACKAGE) - through_monai == set()


def test_every_import_of_the_tests_and_benchmarks_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    known = declared([*PROJECT["dependencies"], *extras["test"]])
    optional = set(declared([*extras["onnx"], *extras["timm"]])) - set(known)
    assert imported_distributions(REPOSITORY / "tests", REPOSITORY / "bench") - set(known) - optional == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_every_declared_package_within_its_range(python: str) -> None:
    environment = {**default_environment(), "python_version": python, "extra": ""}
    lines = [line.split("#")[0].strip() for line in (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()]
    pins: dict[str, Version] = {}
    for pin in (Requirement(line) for line in lines if line):
        if pin.marker is None or pin.marker.evaluate(environment):
            (exact,) = pin.specifier
            assert exact.operator == "==" and canonical(pin.name) not in pins
            pins[canonical(pin.name)] = Version(exact.version)
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for name, requirement in declared(text for group in groups for text in group).items():
        applies = requirement.marker is None or requirement.marker.evaluate(environment)
        if applies and name != "monai-anomaly":
            assert name in pins, f"constraints.txt has no {name} for Python {python}"
            assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is not {requirement.specifier}"
    assert str(pins["torch"]) == "2.13.0"


def test_declared_pythons_are_the_tested_ones() -> None:
    prefix = "Programming Language :: Python :: 3."
    minors = [f"3.{text.removeprefix(prefix)}" for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert tuple(minors) == PYTHONS
    assert PROJECT["license"] == "Apache-2.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy, so that the checkout gets no ``build`` folder."""
    pytest.importorskip("setuptools", "77", reason="building the wheel needs setuptools >= 77: pip install -e .[test]")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (built,) = folder.glob("monai_anomaly-*.whl")
    return built


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    expected = {
        path.relative_to(REPOSITORY).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != ".DS_Store"
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert found == expected
    assert len(licences) == 1
    assert "monai_anomaly/py.typed" in found
    for folder in ("bundle/recipes", "bundle/schema", "data/sample", "data/sample_retina", "visualize/templates"):
        assert any(name.startswith(f"monai_anomaly/{folder}/") for name in found), folder


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 8 * 2**20


PROBE = """
import importlib, json, pkgutil
from pathlib import Path
import monai_anomaly
from monai_anomaly.data import sample_dir

for module in pkgutil.walk_packages(monai_anomaly.__path__, "monai_anomaly."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
folder = Path(sample_dir())
items = json.loads((folder / "datalist.json").read_text("utf-8"))
assert all((folder / item["image"]).is_file() for name in ("training", "testing") for item in items[name])
print(monai_anomaly.__file__)
print(folder)
"""


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "MPLBACKEND": "Agg"}
    # A file that lies elsewhere, not -c: the first entry of sys.path is then its folder, never the checkout.
    probe = elsewhere / "probe.py"
    probe.write_text(PROBE, "utf-8")
    done = subprocess.run([sys.executable, str(probe)], cwd=elsewhere, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    module, folder = (Path(line).resolve() for line in done.stdout.splitlines()[-2:])
    assert module.is_relative_to(site.resolve())
    assert folder.is_relative_to(site.resolve())
