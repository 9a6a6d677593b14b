# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import Dataset

from monai_anomaly.engines import prepare_image_batch
from monai_anomaly.handlers import TrainingCheckpoint
from monai_anomaly.handlers.training_data import DataMark
from monai_anomaly.utils.run_lock import release_folder


class Files(Dataset[Any]):
    """Images in files, as a data set with ``data``."""

    def __init__(self, folder: Path, targets: tuple[int, ...] = (0, 0, 1)) -> None:
        self.data: list[dict[str, Any]] = [
            {"image": str(folder / f"{i}.raw"), "label": str(folder / f"{i}.mask"), "target": target}
            for i, target in enumerate(targets)
        ]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = np.fromfile(self.data[index]["image"], np.uint8)
        return {"image": torch.from_numpy(pixels[:16].astype(np.float32)).reshape(1, 4, 4)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    draw = np.random.default_rng(0)
    for i in range(3):
        draw.integers(0, 256, 40_000, np.uint8).tofile(path / f"{i}.raw")
        (path / f"{i}.mask").write_bytes(b"mask")
    return path


def mark(data: Dataset[Any], whole: bool = False) -> DataMark:
    return DataMark(cast(Engine, SimpleNamespace(data_loader=SimpleNamespace(dataset=data))), whole)


def change(file: Path, position: int, keep_time: bool = True) -> None:
    """Change one byte of a file."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[position] ^= 255
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("position", [0, 4095, 20_000, -1])
@pytest.mark.parametrize("whole", [False, True])
def test_a_change_of_content_is_seen_though_the_time_is_kept(folder: Path, position: int, whole: bool) -> None:
    before = mark(Files(folder), whole)
    names, contents, times = before.names(), before.contents(), before.times()
    change(folder / "1.raw", position)
    after = mark(Files(folder), whole)
    assert after.names() == names and after.times() == times
    assert after.contents() != contents


def test_between_the_samples_only_the_whole_mark_sees_it(folder: Path) -> None:
    sampled, whole = mark(Files(folder)).contents(), mark(Files(folder), True).contents()
    change(folder / "1.raw", 10_000, keep_time=False)
    assert mark(Files(folder)).contents() == sampled, "what is said of samples in the documentation"
    assert mark(Files(folder), True).contents() != whole
    (folder / "1.raw").write_bytes((folder / "1.raw").read_bytes() + b"!")
    assert mark(Files(folder)).contents() != sampled


def test_masks_count_too(folder: Path) -> None:
    before = mark(Files(folder)).contents()
    (folder / "2.mask").write_bytes(b"ask")
    assert mark(Files(folder)).contents() != before


def test_a_copy_of_the_data_is_the_same_data(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere" / "data")
    here, there = mark(Files(folder)), mark(Files(tmp_path / "elsewhere" / "data"))
    assert (here.names(), here.contents()) == (there.names(), there.contents())


def test_names_tell_order_and_targets(folder: Path) -> None:
    marks = {mark(Files(folder, targets)).names() for targets in [(0, 0, 1), (1, 0, 0), (0, 0)]}
    assert len(marks) == 3 and None not in marks


@pytest.mark.parametrize("data", [[torch.zeros(1)], [{"image": torch.zeros(1)}], []], ids=["tensors", "arrays", "none"])
def test_data_that_are_no_files_have_no_mark(data: list[Any]) -> None:
    found = mark(cast(Dataset[Any], SimpleNamespace(data=data)))
    assert (found.names(), found.contents(), found.times()) == (None, None, None)
    assert DataMark(None).names() is None


def train(folder: Path, output: Path, whole_files: bool = False) -> None:
    network = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    checkpoint = TrainingCheckpoint(output, network, optimizer, min_seconds=0, whole_files=whole_files)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=torch.utils.data.DataLoader(Files(folder), batch_size=3),
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        prepare_batch=prepare_image_batch,
        decollate=False,
        train_handlers=[checkpoint],
    ).run()


def test_a_run_does_not_go_on_with_images_that_have_changed(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run")
    train(folder, tmp_path / "run")
    change(folder / "0.raw", 5)
    with pytest.raises(ValueError, match="files of the training images have changed since.*another output_dir"):
        train(folder, tmp_path / "run")
    release_folder(tmp_path / "run")


def test_files_written_again_are_a_warning_and_all_bytes_none(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for whole in (False, True):
        train(folder, tmp_path / str(whole), whole)
    os.utime(folder / "0.raw", ns=(1, 1))
    caplog.set_level(logging.WARNING)
    train(folder, tmp_path / "True", True)
    assert "written again" not in caplog.text
    train(folder, tmp_path / "False")
    assert "written again" in caplog.text and "--whole_files True" in caplog.text
    for begun, how in ((False, "without"), (True, "with")):
        with pytest.raises(ValueError, match=rf"\(the run began {how} --whole_files True\)"):
            train(folder, tmp_path / str(begun), whole_files=not begun)
        release_folder(tmp_path / str(begun))


def test_pixels_that_a_header_names_count_as_well(tmp_path: Path) -> None:
    data = Files(tmp_path, (0,))
    data.data = [{"image": str(tmp_path / "a.mhd"), "target": 0}]
    header = "ObjectType = Image\nNDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    (tmp_path / "a.mhd").write_text(header)
    (tmp_path / "a.raw").write_bytes(bytes(64))
    before = mark(data).contents()
    (tmp_path / "a.raw").write_bytes(bytes(63) + b"1")
    assert mark(data).contents() != before
