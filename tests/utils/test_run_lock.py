# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_anomaly.utils.run_lock import LOCK, OWNER, lock_folder, release_folder

HOLDER = """
import sys
from monai_anomaly.utils.run_lock import lock_folder
lock_folder(sys.argv[1])
print("locked", flush=True)
sys.stdin.read()
"""


def other_process(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is ended."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def test_another_process_is_refused_by_its_number_and_let_in_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "a new folder"
    with other_process(folder) as holder:
        with pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .*choose another output_dir"):
            lock_folder(folder)
        holder.kill()
    lock_folder(folder)
    assert (folder / OWNER).is_file()
    release_folder(folder)
    assert not (folder / OWNER).exists()


def test_a_process_may_take_its_own_lock_again(tmp_path: Path) -> None:
    lock_folder(tmp_path)
    lock_folder(tmp_path / "." / "sub" / "..")
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], check=True, stdin=subprocess.DEVNULL)
    release_folder(tmp_path)
    release_folder(tmp_path)
    with other_process(tmp_path) as holder:
        holder.kill()


def test_an_owner_that_is_not_known_yet_is_another_process(tmp_path: Path) -> None:
    with other_process(tmp_path) as holder:
        (tmp_path / OWNER).unlink()
        with pytest.raises(ValueError, match="in use by another process"):
            lock_folder(tmp_path)
        holder.kill()
    assert (tmp_path / LOCK).exists()
