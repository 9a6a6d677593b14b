# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from tqdm import tqdm


def loss_value(output: Any) -> float:
    """The loss in a trainer's output, one dictionary or one an image, as a number for progress bars and TensorBoard."""
    return float((output[0] if isinstance(output, list) else output)[CommonKeys.LOSS].detach())


class EpochProgress:
    """A progress bar over the epochs of a trainer, or over the batches of an evaluator, shown by the first process.

    Args:
        name: text before the bar.
        unit: ``"epoch"`` or ``"batch"``.

    Raises:
        ValueError: when ``unit`` is unknown.
    """

    def __init__(self, name: str = "training", unit: str = "epoch") -> None:
        if unit not in ("epoch", "batch"):
            raise ValueError(f'unit must be "epoch" or "batch", got {unit!r}.')
        self.name = name
        self.unit = unit
        self._bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        # after the handlers that restore a run, so that the bar begins where the run does
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        step = Events.EPOCH_COMPLETED if self.unit == "epoch" else Events.ITERATION_COMPLETED
        engine.add_event_handler(step, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        if self._bar is None:
            epochs = self.unit == "epoch"
            total = engine.state.max_epochs if epochs else engine.state.epoch_length
            done = engine.state.epoch - 1 if epochs else engine.state.iteration % (engine.state.epoch_length or 1)
            hidden = idist.get_rank() != 0
            self._bar = tqdm(total=total, initial=done, desc=self.name, unit=self.unit, disable=hidden)

    def _advance(self, engine: Engine) -> None:
        if self.unit == "epoch":
            self._bar.set_postfix(loss=f"{loss_value(engine.state.output):.4f}", refresh=False)
        self._bar.update()

    def _close(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
