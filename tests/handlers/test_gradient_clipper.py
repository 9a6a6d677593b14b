# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.engines import IterationEvents, SupervisedTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_anomaly.handlers import GradientClipper


class Weights(nn.Module):
    """Two parameters whose gradients are what goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        return (image[:, :2] * self.first).sum(1) + (image[:, 2:] * self.second).sum(1)

    def value(self) -> Tensor:
        return torch.cat([self.first, self.second]).detach()


def _mean(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction.mean()


def _steps(gradients: list[list[float]], max_norm: float | None, every: int = 1, network: Any = None) -> list[Tensor]:
    """The changes of the weights, with a learning rate of -1, by a trainer that meets these gradients in an epoch."""
    network = Weights() if network is None else network
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    changes, last = [], inner.value()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.tensor([g]), "label": torch.zeros(1)} for g in gradients],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1.0, maximize=True),
        loss_function=_mean,
        decollate=False,
        accumulation_steps=every,
        train_handlers=[GradientClipper(max_norm)],
    )

    @trainer.on(IterationEvents.MODEL_COMPLETED)
    def note(engine: Engine) -> None:
        nonlocal last
        if not torch.equal(inner.value(), last):
            changes.append(inner.value() - last)
            last = inner.value()

    trainer.run()
    return changes


def _clipped(gradients: list[list[float]], max_norm: float, every: int = 1) -> list[Tensor]:
    """Sum of each group over its full size, and shortened where the norm of all numbers together is too large."""
    expected = []
    for begin in range(0, len(gradients), every):
        total = torch.tensor(gradients[begin : begin + every]).sum(0) / every
        expected.append(total * min(1.0, max_norm / sum(v**2 for v in total.tolist()) ** 0.5))
    return expected


GRADIENTS = [[3.0, 0.0, 4.0], [0.1, 0.2, -0.2], [0.0, -30.0, 40.0], [0.0, 0.0, 0.9]]


@pytest.mark.parametrize("max_norm", [0.25, 1.0, 5.0, 100.0])
def test_norm_of_all_gradients_together_is_kept_below(max_norm: float) -> None:
    torch.testing.assert_close(_steps(GRADIENTS, max_norm), _clipped(GRADIENTS, max_norm), rtol=1e-4, atol=1e-6)


def test_default_is_the_published_norm() -> None:
    assert GradientClipper().max_norm == 1.0


def test_none_leaves_gradients_as_they_are() -> None:
    torch.testing.assert_close(_steps(GRADIENTS, None), [torch.tensor(g) for g in GRADIENTS], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("every", [2, 3, 4, 7])
def test_accumulated_gradients_are_clipped_once_before_the_step(every: int) -> None:
    # large ones that nearly cancel out: clipped one by one they would leave another direction
    gradients = [[10.0, 0.0, 2.0], [-9.0, 1.0, -2.0], [-0.5, 0.0, 0.5], [40.0, 0.0, 30.0], [-1.0, 7.0, 0.0]]
    expected = _clipped(gradients, 1.0, every)
    assert len(expected) == -(-5 // every), "the last group of an epoch may be short"
    torch.testing.assert_close(_steps(gradients, 1.0, every), expected, rtol=1e-4, atol=1e-6)


def test_scaled_gradients_of_mixed_precision_are_clipped_at_their_own_size() -> None:
    network = Weights()
    optimizer = torch.optim.SGD(network.parameters(), 1.0, maximize=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(engine: Any, batch: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(network(batch[None]).mean()).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        scaler.step(optimizer)
        scaler.update()

    engine: Any = Engine(step)
    engine.register_events(*IterationEvents)
    engine.network, engine.optimizer, engine.scaler, engine.accumulation_steps = network, optimizer, scaler, 1
    GradientClipper(1.0).attach(engine)
    engine.run(torch.tensor(GRADIENTS))
    torch.testing.assert_close(network.value(), torch.stack(_clipped(GRADIENTS, 1.0)).sum(0), rtol=1e-4, atol=1e-6)


def test_network_wrapped_for_distributed_training(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        changes = _steps(GRADIENTS, 1.0, network=DistributedDataParallel(Weights()))
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(changes, _clipped(GRADIENTS, 1.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("max_norm", [0.0, -1.0])
def test_wrong_norm(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm must be above 0 or None, got {max_norm}"):
        GradientClipper(max_norm)
