# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about weights: they unpack to what they seem to be, and loading them needs no code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .finding import Finding

MAX_ENTRIES = 100_000
MAX_PICKLE = 64 * 2**20
MAX_CODE = 16 * 2**20
MAX_RATIO = 20  # of a TorchScript archive, whose code is compressed
#: What TorchScript code must not call: files, whatever they are asked of, and operators of libraries that are loaded.
#: Spaces and ends of lines may stand around a dot; so may comments, which exported code has none of.
_TORCHSCRIPT = re.compile(
    r"\.[\s\\]*(_?(from_file|save|load)\b|#)|\btorch[\s\\]*(\.[\s\\]*(classes|_C)\b|#)"
    r"|\bops[\s\\]*(\.[\s\\]*(?!aten\b|prim\b|prims\b)[^\s\\]\w*|#)"
)


def lint_weights(path: Path, name: str) -> Iterator[Finding]:
    """A checkpoint must be loadable with ``weights_only=True``; told from its pickle's opcodes, loading nothing."""
    remedy = "save a state dict of tensors and plain Python values with torch.save"
    problem = archive_problem(path, compressed=False)
    if problem is not None:
        yield Finding("weights", name, "", problem, remedy)
        return
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        unsafe = get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # whatever a damaged or hostile file provokes, the answer is the same
        yield Finding("weights", name, "", f"cannot be analyzed ({type(error).__name__}: {error})", remedy)
        return
    if unsafe:
        yield Finding("weights", name, "", f"loading needs {', '.join(sorted(unsafe))}", remedy)


def lint_torchscript(path: Path, name: str) -> Iterator[Finding]:
    """A TorchScript archive is a program; only what networks need may be in it."""
    remedy = "export it with monai.bundle ckpt_export"
    problem = archive_problem(path, compressed=True)
    if problem is None and not _code_entries(path):
        problem = "not a TorchScript archive"
    if problem is not None:
        yield Finding("weights", name, "", problem, remedy)
        return
    with zipfile.ZipFile(path) as archive:
        for entry in _code_entries(path):
            found = _TORCHSCRIPT.search(archive.read(entry).decode("utf-8", "replace"))
            if found:
                yield Finding("weights", name, "", f"its code uses '{found[0]}'", remedy)


def archive_problem(path: Path, compressed: bool) -> str | None:
    """Say why a file is not an archive as torch writes it, or None; told from its table of contents.

    Args:
        path: the file.
        compressed: whether entries may be compressed, as those of TorchScript's code are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "not a file of today's torch.save (a zip)"
    if len(entries) > MAX_ENTRIES:
        return f"{len(entries)} entries, more than {MAX_ENTRIES}"
    if len({entry.filename for entry in entries}) < len(entries):
        return "two entries of one name: readers differ in which one they take"
    packed = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries)
    limit = MAX_RATIO * packed + 2**20 if compressed else packed
    if unpacked > limit or (not compressed and any(entry.compress_type for entry in entries)):
        return f"{packed} bytes unpack to {unpacked}, as torch.save writes no archive"
    if any(entry.file_size > MAX_PICKLE for entry in entries if entry.filename.endswith(".pkl")):
        return f"a pickle of more than {MAX_PICKLE // 2**20} MB"
    if any(entry.file_size > MAX_CODE for entry in entries if "/code/" in entry.filename):
        return f"code of more than {MAX_CODE // 2**20} MB"
    return None


def _code_entries(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
