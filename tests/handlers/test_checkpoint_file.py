# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from monai_anomaly.handlers.checkpoint_file import CheckpointFile


def saved(path: Path, *numbers: int) -> CheckpointFile:
    file = CheckpointFile(path)
    for number in numbers:
        file.save({"number": number, "weight": torch.full((3,), float(number))})
    return file


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()  # a link to it must not be damaged too
    path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"not a checkpoint\n"}[how])


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path: Path) -> None:
    assert saved(tmp_path / "checkpoint.pt").load() is None


def test_the_newest_is_loaded_and_the_one_before_is_kept(tmp_path: Path) -> None:
    file = saved(tmp_path / "checkpoint.pt", 1, 2, 3)
    assert (file.load() or {})["number"] == 3
    assert torch.load(tmp_path / "checkpoint_before.pt", weights_only=True)["number"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint_before.pt"]


@pytest.mark.parametrize("how", ["empty", "half", "text"])
def test_a_broken_file_is_named_and_the_one_before_taken(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = saved(tmp_path / "checkpoint.pt", 1, 2)
    damage(file.path, how)
    with caplog.at_level(logging.WARNING):
        assert (file.load() or {})["number"] == 1
    (record,) = caplog.records
    assert str(file.path) in record.getMessage() and "checkpoint_before.pt" in record.getMessage()
    file.save({"number": 5})
    assert (file.load() or {})["number"] == 5


@pytest.mark.parametrize("numbers", [(1,), (1, 2)])
def test_without_a_readable_one_the_remedy_is_said(numbers: tuple[int, ...], tmp_path: Path) -> None:
    file = saved(tmp_path / "checkpoint.pt", *numbers)
    for path in list(tmp_path.iterdir()):
        damage(path, "empty")
    with pytest.raises(ValueError, match="cannot be read .*delete checkpoint.pt to start this training anew") as error:
        file.load()
    assert all(str(path) in str(error.value) for path in tmp_path.iterdir())


def test_where_there_are_no_links_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    file = saved(tmp_path / "checkpoint.pt", 1, 2)
    assert torch.load(file.before, weights_only=True)["number"] == 1


def test_a_full_disk_costs_neither_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "checkpoint.pt", 1, 2)
    save = torch.save

    def save_where_no_room_is(state: object, path: Path) -> None:
        path.symlink_to("/dev/full")
        save(state, path)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    monkeypatch.setattr(torch, "save", save_where_no_room_is)
    with pytest.raises(OSError, match="no room .*what stood there before is whole") as error:
        file.save({"number": 3})
    assert str(file.path) in str(error.value)
    assert (file.load() or {})["number"] == 2
    assert torch.load(file.before, weights_only=True)["number"] == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kill_while_the_file_is_linked_stops_nothing(tmp_path: Path) -> None:
    file = saved(tmp_path / "checkpoint.pt", 1, 2)
    os.link(file.path, tmp_path / ".partial-checkpoint_before.pt")
    saved(tmp_path / "checkpoint.pt", 3)
    assert torch.load(file.before, weights_only=True)["number"] == 2
    assert (file.load() or {})["number"] == 3 and len(list(tmp_path.iterdir())) == 2


def test_a_broken_file_does_not_take_the_place_of_the_one_before(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoint.pt", 1, 2)
    damage(tmp_path / "checkpoint.pt", "half")
    file = CheckpointFile(tmp_path / "checkpoint.pt")
    assert (file.load() or {})["number"] == 1
    file.save({"number": 3})
    assert torch.load(file.before, weights_only=True)["number"] == 1
    file.save({"number": 4})
    assert torch.load(file.before, weights_only=True)["number"] == 3 and (file.load() or {})["number"] == 4
