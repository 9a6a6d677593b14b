# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_anomaly.handlers import StageSwitch


class Stages(nn.Module):
    """Writes down in which stage it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.stage = -1

    def begin_stage(self, stage: int) -> None:
        self.stage = stage


def stages_of(share: float, epochs: int, batches: int, network: nn.Module | None = None) -> list[int]:
    """Stages of all steps of a run."""
    network = Stages() if network is None else network
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    seen: list[int] = []
    engine = Engine(lambda engine, batch: seen.append(inner.stage))
    StageSwitch(network, share).attach(engine)
    engine.run(range(batches), max_epochs=epochs)
    return seen


@pytest.mark.parametrize(
    ("share", "epochs", "batches", "first"), [(0.2, 5, 4, 4), (0.3, 3, 3, 3), (0.2, 1, 2, 1), (0.9, 1, 1, 1)]
)
def test_share_of_all_steps(share: float, epochs: int, batches: int, first: int) -> None:
    assert stages_of(share, epochs, batches) == [0] * first + [1] * (epochs * batches - first)


def test_network_wrapped_for_distributed_training(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert stages_of(0.5, 1, 4, network=DistributedDataParallel(Stages())) == [0, 0, 1, 1]
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=f"share must be in \\(0, 1\\), got {share}"):
        StageSwitch(Stages(), share)


def test_network_without_stages() -> None:
    with pytest.raises(ValueError, match="network must have begin_stage, got Linear"):
        StageSwitch(nn.Linear(1, 1))
