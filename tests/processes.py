# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Waiting for other processes without a deadline: no outcome may depend on the speed of the machine.

What would never happen hangs, and ``faulthandler_timeout`` of pytest says where.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for a condition, or for the end of the process that is to bring it about."""
    while not condition() and (process is None or process.poll() is None):
        time.sleep(_POLL_SECONDS)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # an orphan that nobody has buried is dead as well
    return _state_and_parent(pid)[0] != "Z"


def children_of(pid: int) -> list[int]:
    """Processes that a process has started, as far as the system tells (Linux)."""
    others = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [other for other in others if _state_and_parent(other)[1] == str(pid)]


def wait_for_end(pids: Iterable[int]) -> None:
    """Wait for processes that are not children of this one."""
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid))  # type: ignore[misc]


def _state_and_parent(pid: int) -> tuple[str, str]:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):  # it has just ended, or there is no such folder here
        return "", ""
    return state, parent
