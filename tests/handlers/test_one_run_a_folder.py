# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from evaluation_case import dataset, evaluate, phantom
from ignite.engine import Engine
from torch import nn

from monai_anomaly.handlers import ScoresWriter, TrainingCheckpoint

HOLD = "import sys; from monai_anomaly.utils import lock_folder; lock_folder(sys.argv[1]); print(flush=True); input()"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that works in the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def train(folder: Path) -> None:
    network = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    TrainingCheckpoint(folder, network, torch.optim.SGD(network.parameters())).attach(engine)
    engine.run([0], max_epochs=1)


def test_a_second_training_is_refused(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"in use by process {holder.pid}"):
        train(tmp_path)
    assert not (tmp_path / "model.pt").exists()
    holder.kill()
    holder.wait()
    train(tmp_path)
    assert (tmp_path / "model.pt").is_file()


def test_a_second_evaluation_is_refused_before_it_writes(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "scores.partial.csv").write_text("of the other run")
    samples = dataset(phantom(tmp_path / "data"))
    with pytest.raises(ValueError, match=f"in use by process {holder.pid}"):
        evaluate(samples, [ScoresWriter(tmp_path)])
    assert (tmp_path / "scores.partial.csv").read_text() == "of the other run"
    holder.kill()
    holder.wait()
    evaluate(samples, [ScoresWriter(tmp_path)])
    assert (tmp_path / "scores.csv").is_file()
