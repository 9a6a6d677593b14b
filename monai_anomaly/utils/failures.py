# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How a program ends after an error: one of ours with its own lines alone, any other with its traceback."""

from __future__ import annotations

import dis
import os
import re
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

DEBUG = "MONAI_ANOMALY_DEBUG"
WRONG_INPUT = 2

_PACKAGE = __package__.partition(".")[0]
_RAISE = dis.opmap["RAISE_VARARGS"]
# what the package raises to tell its user something; others, such as a KeyError, are defects wherever they come from
_KINDS = (ValueError, RuntimeError, OSError, ImportError)
_IN_WORKER = re.compile(r"Caught \w+ in .*worker process")


def message_of_ours(error: BaseException) -> str | None:
    """What this package says about an error; None where the error is not of its making.

    MONAI and Ignite wrap what a transform or a handler raises, once or several times; the outermost error of ours tells
    most. An error counts as ours where a ``raise`` of this package made it: one that happens inside a library or an
    expression of ours, such as a failed look-up, is a defect, whose place must be seen.

    Args:
        error: what ended the program.
    """
    for cause in _causes(error):
        if isinstance(cause, _KINDS) and _is_raised_here(cause):
            return str(cause)
        if _IN_WORKER.match(str(cause)):
            return _message_of_worker(str(cause))
    return None


def end_with_reason(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """``sys.excepthook`` of a bundle's run: an error of ours is its own lines; any other has a traceback before them.

    With ``MONAI_ANOMALY_DEBUG=1`` in the environment every error has one.
    """
    message = message_of_ours(error)
    if message is None or is_debugging():
        sys.__excepthook__(kind, error, trace)
    if isinstance(error, Exception):
        message = str(list(_causes(error))[-1]) if message is None else message
        print(f"\nerror: {message}", file=sys.stderr)


def run_command(run: Callable[[], int | None]) -> int:
    """Run a command of the package and return its exit status: 2 for a wrong input, after a line that says what.

    Any other error, a defect, is raised.

    Args:
        run: what the command does; it returns its status, None for success.
    """
    try:
        return int(run() or 0)
    except Exception as error:
        message = message_of_ours(error)
        if message is None and isinstance(error, OSError) and error.filename is not None:
            message = str(error)  # a file that the user has named
        if message is None or is_debugging():
            raise
        print(f"error: {message}", file=sys.stderr)
        return WRONG_INPUT


def is_debugging() -> bool:
    """Whether the environment asks for the traceback of every error."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_raised_here(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] != _PACKAGE:
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def _message_of_worker(text: str) -> str | None:
    """The same for the text that is left of an error in a process that loads data."""
    package = re.escape(os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep)
    raised_here = rf'^  File "{package}[^"]*", line \d+, in .*\n    raise .*\n(?:    .*\n)*'
    found = re.findall(rf"{raised_here}[\w.]+: (.*(?:\n(?!\n).*)*)", text, re.MULTILINE)
    return found[-1].strip() if found else None
