# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about the files of a bundle: what must be there, what must not, and what weights may hold."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from .finding import WARNING, Finding

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
        *("json", "conf", "md", "txt", "rst", "csv", "yml", "yaml", "bib", "pt", "ts", "onnx"),
        *("png", "jpg", "jpeg", "svg", "pdf", "nii", "gz"),
    )
)
KNOWN_NAMES = frozenset({"LICENSE", "NOTICE", ".gitkeep", ".gitignore", ".gitattributes", "CITATION.cff"})
LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
MAX_BYTES = 25 * 2**20
PERSONAL_PATH = re.compile(r"(/home/[\w.-]+|/Users/[\w.-]+|/root/|\b[A-Za-z]:\\+Users\\+[\w.-]+)")
_OUTPUT_SUFFIXES = (".pt", ".json", ".csv", ".html", ".png", ".gz")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def _entries(root: Path) -> list[Path]:
    """All files and links of a bundle in a fixed order; a link is not followed."""
    return sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())


def is_run_output(path: Path) -> bool:
    """Whether training or evaluation wrote a file into the bundle's own folder; code is never taken for an output."""
    written = path.suffix in _OUTPUT_SUFFIXES or path.name.startswith("events.out.tfevents")
    return path.parts[0] in ("runs", "eval") and written


def lint_files(root: Path) -> Iterator[Finding]:
    """Apply every rule about files to the bundle in ``root``."""
    yield from _lint_name(root)
    yield from _lint_required(root)
    listed = _entries(root)
    links = [path for path in root.rglob("*") if path.is_symlink()]
    for path in links:
        remedy = "copy the file into the bundle"
        yield Finding("symlink", _relative(path, root), "", "it is a symbolic link", remedy)
    for path in listed:
        if path.is_symlink():
            continue
        if not is_run_output(path.relative_to(root)):
            yield from _lint_one(path, root)
        elif path.suffix == ".pt":  # other outputs are not loaded, and their size and paths stay on this machine
            yield from _lint_weights(path, _relative(path, root))
    yield from _lint_large_files(root)


def _lint_name(root: Path) -> Iterator[Finding]:
    name = root.resolve().name
    if not _NAME.fullmatch(name):
        remedy = "use lower case letters, digits and single underscores, such as 'd2ue_ae'"
        yield Finding("name", ".", "", f"the folder is named {name!r}", remedy)
    if "detection" in name.lower():
        remedy = "name it ..._anomaly: MONAI Label takes a name with 'detection' for a box detector"
        yield Finding("name-detection", ".", "", f"the folder is named {name!r}", remedy)


def _lint_required(root: Path) -> Iterator[Finding]:
    for name in REQUIRED_FILES:
        if not (root / name).is_file():
            yield Finding("file-missing", name, "", "the file is missing", "add it")
    if not (root / "models").is_dir():
        yield Finding(
            "file-missing", "models", "", "the folder is missing", "add it, with a .gitkeep while it is empty"
        )
    elif not (root / "models" / "model.pt").is_file():
        remedy = "train the bundle and copy its weights there, or list them in large_files.yml"
        yield Finding("weights-missing", "models/model.pt", "", "the bundle has no weights", remedy, WARNING)


def _lint_one(path: Path, root: Path) -> Iterator[Finding]:
    """Rules about one file, whatever it is for."""
    name, suffix = _relative(path, root), path.suffix.lower()
    if suffix in EXECUTABLE or _looks_executable(path):
        yield Finding("executable-file", name, "", "code or a pickle in a bundle", "move the code into a package")
        return
    if suffix in (".yml", ".yaml") and path.relative_to(root).as_posix() not in LARGE_FILES:
        yield Finding("yaml", name, "", "YAML config", "ship JSON: monai.bundle.load reads nothing else")
    elif suffix not in KNOWN and path.name not in KNOWN_NAMES:
        yield Finding("file-type", name, "", f"unknown kind of file '{path.name}'", "remove it", WARNING)
    if path.stat().st_size > MAX_BYTES:
        remedy = "list it in large_files.yml with its sha256 and leave it out"
        yield Finding("file-size", name, "", f"{path.stat().st_size / 2**20:.0f} MB, more than 25", remedy)
    check = _CONTENT_RULES.get("logging.conf" if path.name == "logging.conf" else suffix)
    if check is not None:
        yield from check(path, name)


def _looks_executable(path: Path) -> bool:
    """Scripts and binaries are known by their first bytes, whatever their name."""
    with path.open("rb") as stream:
        return stream.read(4).startswith((b"#!", b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe"))


def _lint_text(path: Path, name: str) -> Iterator[Finding]:
    found = PERSONAL_PATH.search(path.read_text(encoding="utf-8", errors="replace"))
    if found:
        yield Finding("path", name, "", f"personal path '{found[0]}'", "write a path relative to the bundle")


def _lint_weights(path: Path, name: str) -> Iterator[Finding]:
    """A checkpoint must be loadable with ``weights_only=True``; told from its pickle's opcodes, loading nothing."""
    remedy = "save a state dict of tensors and plain Python values with torch.save"
    if not zipfile.is_zipfile(path):
        yield Finding("weights", name, "", "not a file of today's torch.save (a zip)", remedy)
        return
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        unsafe = get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # whatever a damaged or hostile file provokes, the answer is the same
        yield Finding("weights", name, "", f"cannot be analyzed ({type(error).__name__}: {error})", remedy)
        return
    if unsafe:
        yield Finding("weights", name, "", f"loading needs {', '.join(sorted(unsafe))}", remedy)


def _lint_torchscript(path: Path, name: str) -> Iterator[Finding]:
    if not zipfile.is_zipfile(path) or not any("/code/" in entry for entry in zipfile.ZipFile(path).namelist()):
        yield Finding("weights", name, "", "not a TorchScript archive", "export it with monai.bundle ckpt_export")


def _lint_logging(path: Path, name: str) -> Iterator[Finding]:
    """The rule is MONAI's own: only logging classes and literal arguments, since ``fileConfig`` evaluates them."""
    from monai.bundle import workflows

    check: Callable[[str], Any] | None = getattr(workflows, "_reject_executable_logging_config", None)
    try:
        (check or _reject_logging)(str(path))
    except ValueError as error:
        remedy = "use StreamHandler, FileHandler or logging.handlers.* with literal args or sys.stdout"
        yield Finding("logging", name, "", str(error), remedy)


def _reject_logging(path: str) -> None:
    """For a MONAI that does not restrict logging.conf yet."""
    import configparser

    allowed = r"((logging\.)?(StreamHandler|FileHandler|Formatter)|(logging\.)?handlers\.[A-Za-z]+Handler)"
    literal = r"\(\s*((sys\.(stdout|stderr)|'[^']*'|\"[^\"]*\"|\d+)\s*,?\s*)*\)"
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(Path(path).read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be parsed: {error}") from error
    for section in parser.sections():
        for field, pattern in (("class", allowed), ("args", literal), ("kwargs", r"\{\s*\}")):
            value = parser.get(section, field, fallback="")
            if value and not re.fullmatch(pattern, value):
                raise ValueError(f"[{section}] sets {field}={value!r}, which logging would evaluate")


_CONTENT_RULES: dict[str, Callable[[Path, str], Iterator[Finding]]] = {
    ".md": _lint_text,
    ".txt": _lint_text,
    ".conf": _lint_text,
    ".json": _lint_text,
    ".pt": _lint_weights,
    ".ts": _lint_torchscript,
    "logging.conf": _lint_logging,
}


def _lint_large_files(root: Path) -> Iterator[Finding]:
    for name in LARGE_FILES:
        path = root / name
        if path.is_file() and not path.is_symlink():
            try:
                entries = _read_large_files(path)
            except Exception as error:  # yaml has exceptions of its own, and is optional
                yield Finding(
                    "large-files", name, "", f"cannot be read ({error})", "write large_files: a list of path, url"
                )
                continue
            for number, entry in enumerate(entries):
                yield from _lint_large_file(name, f"large_files#{number}", entry)


def _read_large_files(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        import json

        content = json.loads(text)
    else:
        from monai.utils import optional_import

        content = optional_import("yaml", name="safe_load")[0](text)
    entries = content["large_files"] if isinstance(content, dict) and "large_files" in content else None
    if not isinstance(entries, list):
        raise ValueError("it has no list 'large_files'")
    return entries


def _lint_large_file(file: str, place: str, entry: Any) -> Iterator[Finding]:
    if not isinstance(entry, dict) or not {"path", "url"} <= set(entry):
        yield Finding("large-files", file, place, "no path and url", "give path, url, hash_val and hash_type")
        return
    target = PurePosixPath(str(entry["path"]))
    if target.is_absolute() or ".." in target.parts or "\\" in str(target):
        yield Finding(
            "large-files", file, place, f"{entry['path']!r} leaves the bundle", "give a path inside the bundle"
        )
    if target.suffix.lower() in EXECUTABLE:
        yield Finding(
            "executable-file", file, place, f"{entry['path']!r} is code or a pickle", "move code into a package"
        )
    if not str(entry["url"]).startswith("https://"):
        yield Finding("large-files", file, place, f"url {entry['url']!r}", "download by https only")
    digest = str(entry.get("hash_val", ""))
    if entry.get("hash_type") != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        yield Finding("large-files-hash", file, place, "no sha256 of the file", "give hash_type: sha256 and hash_val")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
