# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .output_folder import check_output

#: What ``torch.save`` says when a write fails: the name of its own source file, or that of its stream.
_SIGNS_OF_PYTORCH = ("inline_container.cc", "iostream error")
_OWNER = f"{socket.gethostname()}-"
_RUN = uuid.uuid4().hex  # a restarted container may give a process the name and number of the one that was killed
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_path(
    path: str | os.PathLike[str], shared: bool = False, durable: bool = False, configuration: bool = False
) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only when the block succeeds.

    A reader therefore sees the old file or the whole new one, never half of it, whenever the writer is killed.
    The temporary name is fixed by the target's, so what a killed writer left behind is overwritten by the next one.

    Args:
        path: the file to write; its folder is created.
        shared: whether other processes may write the same file at the same time; each then has a temporary file of its
            own, and the last to finish wins.
        durable: whether the file must be on the disk before it replaces the old one, so that a power cut cannot leave
            an empty one; for files that hours of work hang on.
        configuration: whether the run of a bundle may write it though it has the name of a configuration.

    Raises:
        ValueError: when the run of a bundle would write outside its folders (:func:`check_output`).
        OSError: naming the file and what to do, where the disk or a quota is full; the old file is still there.
    """
    target = check_output(path, configuration)
    target.parent.mkdir(parents=True, exist_ok=True)
    # the name's end is kept, because image writers choose the format by it
    own = f"{_OWNER}{os.getpid()}-{_RUN}-{uuid.uuid4().hex}-" if shared else ""
    temporary = target.with_name(f".partial-{own}{target.name}")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        if not _is_full(error):
            raise
        free = shutil.disk_usage(target.parent).free / 2**20
        raise OSError(
            f"{target} could not be written, no room ({free:,.0f} MiB free): what stood there before is whole; "
            "make room, or choose an output_dir on another disk, and start the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def all_or_none(files: Sequence[Path]) -> Iterator[None]:
    """Let files that were made together be there together, once :func:`remove_leftovers` has tidied up after a kill.

    What is computed in one batch may differ in the last digits from what is computed in another. A run that goes on
    after a kill must find all results of a batch, or none, to make them as an unbroken run does.

    Args:
        files: the files that the block writes, all in one folder.
    """
    journal = files[0].with_name(f".unfinished-{_OWNER}{os.getpid()}-{_RUN}-.json")
    write_json(journal, [file.name for file in files])
    try:
        yield
    finally:  # an error is no kill: what is whole is kept
        journal.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote shared files have left unfinished.

    Files of processes that are still there are let be, and those of other machines.

    Args:
        folder: folder of the files; need not be there.

    Raises:
        ValueError: when the run of a bundle may not write there.
    """
    folder = check_output(folder)
    for path in _of_dead_processes(folder, ".unfinished-"):
        for name in json.loads(path.read_text(encoding="utf-8")):
            (folder / Path(name).name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    for path in _of_dead_processes(folder, ".partial-"):
        path.unlink(missing_ok=True)


def _of_dead_processes(folder: Path, kind: str) -> Iterator[Path]:
    begin = f"{kind}{_OWNER}"
    for path in list(folder.glob(f"{begin}*-*")) if os.name == "posix" else []:
        process, run = path.name.removeprefix(begin).split("-")[:2]
        if process.isdigit() and not _is_running(int(process), run):
            yield path


def _is_running(process: int, run: str) -> bool:
    if process == os.getpid():
        return run == _RUN
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room."""
    return getattr(error, "errno", None) in _NO_ROOM or any(sign in str(error) for sign in _SIGNS_OF_PYTORCH)


def write_text(path: str | os.PathLike[str], text: str, shared: bool = False) -> None:
    """Write ``text`` to ``path`` as UTF-8, all or nothing; ``shared`` as for :func:`atomic_path`."""
    with atomic_path(path, shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, shared: bool = False) -> None:
    """Write ``value`` to ``path`` as indented JSON, all or nothing; NaN is refused, since other readers reject it.

    ``shared`` as for :func:`atomic_path`.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", shared)


def finite_or_none(value: float | None) -> float | None:
    """A number as JSON can hold it: NaN and infinity become None."""
    return value if value is not None and math.isfinite(value) else None
