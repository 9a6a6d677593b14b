# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .output_folder import check_output

LOCK, OWNER = ".run.lock", ".run.owner"
_held: dict[Path, FileLock] = {}


def lock_folder(folder: str | os.PathLike[str]) -> None:
    """Keep other processes from writing results into a folder while this one does.

    The lock is the operating system's: it is gone when this process ends, however that happens. A process that holds it
    may take it again, since it does one thing after the other.

    Args:
        folder: the folder, made if missing.

    Raises:
        ValueError: when another process holds the lock; the text names that process. When the run of a bundle may not
            write there.
    """
    path = check_output(folder).resolve()
    if path in _held:
        return
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{path} is in use by {_owner(path)}: wait until it has ended, end it, or choose another output_dir"
        ) from error
    _held[path] = lock
    with suppress(OSError):  # a full disk is for those to tell who write results
        (path / OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")


def release_folder(folder: str | os.PathLike[str]) -> None:
    """Give back the lock of :func:`lock_folder`, if this process holds it."""
    path = Path(folder).resolve()
    lock = _held.pop(path, None)
    if lock is not None:
        (path / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER).read_text(encoding="utf-8").strip()
    except OSError:  # it has only just taken the lock, or could not write
        return "another process"
