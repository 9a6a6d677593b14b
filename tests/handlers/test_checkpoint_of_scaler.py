# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_anomaly.handlers import TrainingCheckpoint


def run(folder: Path, epochs: int, initial_scale: float) -> torch.amp.GradScaler:
    """A training with mixed precision that does nothing but double its gradients' scale at every step."""
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    engine = Engine(lambda engine, batch: engine.scaler.update(engine.scaler.get_scale() * 2))
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=initial_scale)
    engine.scaler.scale(torch.ones(1))  # makes the scale, as the first step does
    if epochs == 1:  # ends like a kill, right after the checkpoint of the first epoch
        engine.add_event_handler(Events.EPOCH_STARTED(once=2), _die)
    TrainingCheckpoint(folder, network, optimizer, min_seconds=0).attach(engine)
    with contextlib.suppress(KeyboardInterrupt):
        engine.run([0], max_epochs=2)
    return engine.scaler


def _die() -> None:
    raise KeyboardInterrupt


def test_a_resumed_run_goes_on_with_the_scale_of_the_gradients(tmp_path: Path) -> None:
    unbroken = run(tmp_path / "unbroken", 2, 8.0).get_scale()
    run(tmp_path / "broken", 1, 8.0)
    resumed = run(tmp_path / "broken", 2, 1024.0).get_scale()
    assert unbroken == resumed == 32.0
