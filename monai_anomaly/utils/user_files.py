# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Opening files that users name: the one place that decides what may be opened and how much of it is read."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

MAX_TEXT_BYTES = 2**28
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def check_user_file(
    path: str | os.PathLike[str], what: str, missing: str = "correct the path", folder: bool = False
) -> os.stat_result:
    """Refuse, before it is opened, what is no ordinary file: a named pipe waits for ever, a device never ends.

    Args:
        path: the file.
        what: kind of file for messages, such as ``"image"``.
        missing: what to do where there is no such file.
        folder: whether a folder may stand there as well.

    Returns:
        Its status.

    Raises:
        ValueError: naming file and remedy.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
    except ValueError:  # NUL, or characters that no file system can hold
        raise ValueError(f"{what} {name!r} is no path: it holds a character that no file name can: {missing}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{what} {name} does not exist: {missing}") from None
    except OSError as error:  # no permission, a circle of links, a name that is too long
        raise ValueError(f"{what} {name} cannot be reached ({error.strerror}): {missing}") from None
    if stat.S_ISDIR(status.st_mode) and not folder:
        raise ValueError(f"{what} {name} is a folder, not a file: {missing}")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError(f"{what} {name} is no ordinary file (a pipe, socket or device): give a file")
    return status


def is_path(text: str) -> bool:
    """Return whether a text can be the name of a file at all."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def read_user_text(path: str | os.PathLike[str], what: str, missing: str = "correct the path") -> str:
    """Return the text of a UTF-8 file, with or without byte order mark.

    Args:
        path: the file.
        what: kind of file for messages, such as ``"CSV"``.
        missing: what to do where there is no such file.

    Raises:
        ValueError: naming file and remedy, where it is no ordinary file, larger than 256 MiB, or not UTF-8.
    """
    check_user_file(path, what, missing)
    name = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{what} {name} cannot be read ({error.strerror}): make it readable") from None
    if len(raw) > MAX_TEXT_BYTES:
        raise ValueError(f"{what} {name} is larger than {MAX_TEXT_BYTES} bytes: split it, or give the right file")
    if raw.startswith(_UTF16_MARKS) or b"\0" in raw[:4096]:
        raise ValueError(f"{what} {name} is no UTF-8 text (UTF-16, or no text at all): save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{what} {name} is no UTF-8 text: byte 0x{raw[error.start]:02x} in line {line} (Latin-1?): save it as UTF-8"
        ) from None


def read_user_json(path: str | os.PathLike[str], what: str, missing: str = "correct the path") -> Any:
    """Return the content of a JSON file in which no object holds a key twice.

    Arguments as for :func:`read_user_text`.

    Raises:
        ValueError: naming file and remedy, also where it is no valid JSON, nested too deeply, or repeats a key.
    """
    text = read_user_text(path, what, missing)
    name = os.fspath(path)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError(
            f"{what} {name} is nested too deeply: it is not what it should be, give the right file"
        ) from None
    except _RepeatedKeyError as error:
        raise ValueError(f"{what} {name}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{what} {name} is no valid JSON ({error}): correct it at that place") from error


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, unless a key stands in it twice: JSON readers silently keep the last one only."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(f"the key {twice!r} stands twice in one object: merge the two, or rename one")
    return result
