# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about the files of a bundle: what must be there, what must not, and what weights may hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from .exported import lint_exported_program
from .finding import WARNING, Finding
from .large_files import LARGE_FILES, lint_large_files
from .logging_config import lint_logging
from .weights import lint_torchscript, lint_weights

REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/inference.json",
    "configs/evaluate.json",
    "configs/multi_gpu_train.json",
    "configs/logging.conf",
    "docs/README.md",
)
EXECUTABLE = frozenset(
    f".{suffix}"
    for suffix in (
        *(
            "py",
            "pyc",
            "pyo",
            "pyw",
            "pyx",
            "pyd",
            "pyi",
            "pth",
            "ipynb",
            "whl",
            "egg",
            "pkl",
            "pickle",
            "joblib",
            "dill",
        ),
        *(
            "npy",
            "npz",
            "engine",
            "plan",
            "trt",
            "so",
            "dll",
            "dylib",
            "exe",
            "bin",
            "jar",
            "sh",
            "bash",
            "bat",
            "cmd",
            "ps1",
            "js",
            "lua",
            "pl",
            "rb",
        ),
    )
)
KNOWN = frozenset(
    f".{suffix}"
    for suffix in (
        *("json", "conf", "md", "txt", "rst", "csv", "yml", "yaml", "bib", "pt", "ts", "pt2", "onnx"),
        *("png", "jpg", "jpeg", "svg", "pdf", "nii", "gz"),
    )
)
_VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", "_darcs", "cvs"})
_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".tbz", ".bz2", ".xz", ".txz", ".7z", ".rar", ".zst", ".cab", ".iso"})
KNOWN_NAMES = frozenset({"LICENSE", "NOTICE", ".gitkeep", ".gitignore", ".gitattributes", "CITATION.cff"})
MAX_BYTES = 25 * 2**20
#: A way up, and an address on the network, in a text.
PARENT = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
URL = re.compile(r"(https?|ftp|s3|gs|file|hf|tcp)://", re.IGNORECASE)
PERSONAL_PATH = re.compile(r"(/home/[\w.-]+|/Users/[\w.-]+|/root/|\b[A-Za-z]:\\+Users\\+[\w.-]+)")
_OUTPUT_SUFFIXES = (".pt", ".json", ".csv", ".html", ".png", ".gz")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def is_run_output(path: Path) -> bool:
    """Whether training or evaluation wrote a file into the bundle's own folder; code is never taken for an output."""
    written = path.suffix in _OUTPUT_SUFFIXES or path.name.startswith("events.out.tfevents")
    return path.parts[0] in ("runs", "eval") and written


def lint_files(root: Path, names: list[str]) -> Iterator[Finding]:
    """Apply every rule about files.

    Args:
        root: folder of the bundle.
        names: paths of its regular files, relative to it.
    """
    yield from _lint_name(root)
    yield from _lint_required(root, names)
    for name in names:
        if not is_run_output(Path(name)):
            yield from _lint_one(root / name, name)
        elif name.endswith(".pt"):  # other outputs are not loaded, and their size and paths stay on this machine
            yield from lint_weights(root / name, name)
    yield from lint_large_files(root, names)


def _lint_name(root: Path) -> Iterator[Finding]:
    name = root.resolve().name
    if not _NAME.fullmatch(name):
        remedy = "use lower case letters, digits and single underscores, such as 'd2ue_ae'"
        yield Finding("name", ".", "", f"the folder is named {name!r}", remedy)
    if "detection" in name.lower():
        remedy = "name it ..._anomaly: MONAI Label takes a name with 'detection' for a box detector"
        yield Finding("name-detection", ".", "", f"the folder is named {name!r}", remedy)


def _lint_required(root: Path, names: list[str]) -> Iterator[Finding]:
    for name in REQUIRED_FILES:
        if name not in names:
            yield Finding("file-missing", name, "", "the file is missing", "add it")
    if not (root / "models").is_dir():
        remedy = "add it, with a .gitkeep while it is empty"
        yield Finding("file-missing", "models", "", "the folder is missing", remedy)
    elif "models/model.pt" not in names:
        remedy = "train the bundle and copy its weights there, or list them in large_files.yml"
        yield Finding("weights-missing", "models/model.pt", "", "the bundle has no weights", remedy, WARNING)


def _lint_one(path: Path, name: str) -> Iterator[Finding]:
    """Rules about one file, whatever it is for."""
    suffix = path.suffix.lower()
    if suffix in EXECUTABLE or _looks_executable(path):
        yield Finding("executable-file", name, "", "code or a pickle in a bundle", "move the code into a package")
        return
    if suffix in (".yml", ".yaml") and name not in LARGE_FILES:
        yield Finding("yaml", name, "", "YAML config", "ship JSON: monai.bundle.load reads nothing else")
    elif _VERSION_CONTROL.intersection(Path(name.lower()).parts[:-1]):
        message = "belongs to version control, whose programs run what its settings name"
        yield Finding("file-type", name, "", message, "leave the folder out of the bundle")
    elif suffix in _ARCHIVES:
        yield Finding("file-type", name, "", "an archive, into which nobody looks", "ship what is in it")
    elif suffix not in KNOWN and path.name not in KNOWN_NAMES:
        yield Finding("file-type", name, "", f"unknown kind of file {path.name!r}", "remove it", WARNING)
    size = path.stat().st_size
    if size > MAX_BYTES:
        remedy = "list it in large_files.yml with its sha256 and leave it out"
        yield Finding("file-size", name, "", f"{size / 2**20:.0f} MB, more than 25", remedy)
    if suffix in _CONTENT_RULES and (size <= MAX_BYTES or suffix in (".pt", ".ts")):
        yield from _CONTENT_RULES[suffix](path, name)


def _looks_executable(path: Path) -> bool:
    """Scripts and binaries are known by their first bytes, whatever their name."""
    with path.open("rb") as stream:
        return stream.read(4).startswith((b"#!", b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe"))


def _lint_text(path: Path, name: str) -> Iterator[Finding]:
    found = PERSONAL_PATH.search(path.read_text(encoding="utf-8", errors="replace"))
    if found:
        yield Finding("path", name, "", f"personal path '{found[0]}'", "write a path relative to the bundle")


def _lint_conf(path: Path, name: str) -> Iterator[Finding]:
    yield from _lint_text(path, name)
    yield from lint_logging(path, name)


_CONTENT_RULES: dict[str, Callable[[Path, str], Iterator[Finding]]] = {
    ".md": _lint_text,
    ".txt": _lint_text,
    ".json": _lint_text,
    ".conf": _lint_conf,
    ".pt": lint_weights,
    ".ts": lint_torchscript,
    ".pt2": lint_exported_program,
}
