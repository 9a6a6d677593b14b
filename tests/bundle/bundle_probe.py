# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""``python -m monai.bundle`` with a look at each process: its weights after every epoch, in the folder PROBE_DIR."""

from __future__ import annotations

import os
import runpy

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from monai_anomaly.engines import EnsembleTrainer
from monai_anomaly.utils import unwrap


def _record(engine: Engine) -> None:
    name = f"rank{dist.get_rank()}_epoch{engine.state.epoch}.pt"
    assert isinstance(engine, EnsembleTrainer)
    torch.save(unwrap(engine.network).state_dict(), os.path.join(os.environ["PROBE_DIR"], name))


if __name__ == "__main__":
    begin = EnsembleTrainer.run

    def run(trainer: EnsembleTrainer) -> None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, _record)
        begin(trainer)

    EnsembleTrainer.run = run  # type: ignore[method-assign]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
