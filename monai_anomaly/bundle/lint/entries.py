# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What is in a bundle's folder, told by ``lstat`` before anything is opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .finding import Finding

MAX_ENTRIES = 20_000
MAX_DEPTH = 20
_REGULAR, _FOLDER, _LINK = "file", "folder", "symbolic link"
_SPECIAL = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


class Entries(NamedTuple):
    """Contents of a bundle's folder.

    Args:
        files: paths of the regular files, relative to the folder, sorted.
        findings: about what is not a regular file or a folder, and about names.
    """

    files: list[str]
    findings: list[Finding]


def list_entries(root: Path) -> Entries:
    """Everything in a folder; links are not followed, and nothing is opened but folders.

    Args:
        root: the folder.
    """
    files, findings = list[str](), list[Finding]()
    for count, (name, kind) in enumerate(_walk(root)):
        if count >= MAX_ENTRIES:
            message = f"more than {MAX_ENTRIES} files, of which the rest has not been looked at"
            findings.append(Finding("too-many-files", ".", "", message, "remove what does not belong to the bundle"))
            break
        findings += _about_name(name)
        if kind == _REGULAR:
            files.append(name)
        elif kind == _LINK:
            findings.append(Finding("symlink", name, "", "it is a symbolic link", "copy the file into the bundle"))
        elif kind != _FOLDER:
            findings.append(Finding("special-file", name, "", f"it is a {kind}", "remove it"))
    return Entries(sorted(files), findings)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Paths below ``root`` and what they are; a loop, so that no depth of folders ends it."""
    folders = [""]
    while folders:
        folder = folders.pop()
        if folder.count("/") >= MAX_DEPTH:
            yield folder, f"folder more than {MAX_DEPTH} folders deep"
            continue
        try:
            names = sorted(os.listdir(root / folder))
        except OSError as error:
            yield folder, f"folder that cannot be read ({error.strerror})"
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            kind = _kind(root / path)
            yield path, kind
            if kind == _FOLDER:
                folders.append(path)


def _kind(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return f"file that cannot be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return _REGULAR if os.access(path, os.R_OK) else "file that cannot be read"
    if stat.S_ISDIR(mode):
        return _FOLDER
    return _LINK if stat.S_ISLNK(mode) else _SPECIAL.get(stat.S_IFMT(mode), "special file")


def _about_name(name: str) -> Iterator[Finding]:
    hidden = sorted({character for character in name if unicodedata.category(character)[0] == "C"})
    if hidden or "\\" in name:
        message = "its name has characters that a screen does not show, or takes for commands"
        yield Finding("file-name", name, "", message, "use letters, digits, '_', '-' and '.'")
