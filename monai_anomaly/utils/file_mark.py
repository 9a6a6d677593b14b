# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def file_mark(path: str | os.PathLike[str] | None) -> str | None:
    """Short hash of a file's content, by which a run knows the weights it began with; None where there is no file."""
    if path is None or not Path(path).is_file():
        return None
    return file_sha256(path)[:16]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sampled_mark(path: str | os.PathLike[str], size: int = 4096) -> str | None:
    """Short hash of a file's length and of its beginning, middle and end; None where there is no file.

    Cheap enough for every image of a data set: three short reads. What changes elsewhere without changing the length is
    not noticed; :func:`file_mark` reads all.

    Args:
        path: the file.
        size: bytes of each sample, at least 1.
    """
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(length).encode())
        for start in (0, max(0, (length - size) // 2), max(0, length - size)):
            file.seek(start)
            digest.update(file.read(size))
    return digest.hexdigest()[:16]
