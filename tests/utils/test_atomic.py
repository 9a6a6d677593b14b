# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from monai_anomaly.utils import atomic_path, write_text
from monai_anomaly.utils.atomic import all_or_none, remove_leftovers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are looked for as POSIX does")


def _die_while_writing(path: Path) -> None:
    with atomic_path(path, shared=True) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def _die_between_files(files: list[Path]) -> None:
    with all_or_none(files):
        write_text(files[0], "text", shared=True)
        os.kill(os.getpid(), signal.SIGKILL)


def test_of_files_that_were_made_together_a_kill_leaves_none(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    process = multiprocessing.get_context("fork").Process(target=_die_between_files, args=(files,))
    process.start()
    process.join()
    assert files[0].is_file() and not files[1].is_file()
    (tmp_path / "other").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    with all_or_none(files):
        for file in files:
            write_text(file, "text")
        remove_leftovers(tmp_path)  # this process is still there
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "other"}


def test_what_a_killed_process_left_of_a_shared_file_is_removed_and_nothing_else(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(tmp_path / "x.pt",))
    process.start()
    process.join()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".partial-") and left.name.endswith("-x.pt")
    others = [".partial-x.pt", f".partial-elsewhere-{process.pid}-0-x.pt", "x.pt"]
    for name in others:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "y.pt", shared=True) as mine:  # this process is still there
        mine.touch()
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*others, mine.name}
    remove_leftovers(tmp_path / "nowhere")


def test_who_died_with_the_number_that_this_process_has_now_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is started again has its name again, and its processes their numbers."""
    process = multiprocessing.get_context("fork").Process(target=_die_between_files, args=([tmp_path / "a"],))
    process.start()
    process.join()
    monkeypatch.setattr("monai_anomaly.utils.atomic._RUN", "of the new process")
    monkeypatch.setattr(os, "getpid", lambda: process.pid)
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
