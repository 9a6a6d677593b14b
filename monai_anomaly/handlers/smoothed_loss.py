# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class SmoothedLoss:
    """Follows the loss of a validation over the run, smoothed, and ends a training that no longer gets better.

    Publishes in the evaluator's metrics ``validation_loss`` (mean over the images of all processes), ``smoothed_loss``
    (``keep`` of the last smoothed one and the rest of the new one) and ``negative_loss``, which is larger where better,
    as the handlers that choose the best weights want it.

    Args:
        evaluator: evaluator whose output has ``losses``, one an image (:class:`monai_anomaly.engines.LossBatch`).
        keep: share of the last smoothed loss, in [0, 1); published default 0.9.
        patience: validations without a better smoothed loss after which the training ends, at least 1; None: never.
            Published: 100 (50,000 steps, one validation in 500).

    Raises:
        ValueError: when an argument is outside its range.
    """

    def __init__(self, evaluator: Engine, keep: float = 0.9, patience: int | None = None) -> None:
        if not 0 <= keep < 1 or (patience is not None and patience < 1):
            raise ValueError(f"keep must be in [0, 1) and patience at least 1 or None, got {keep!r} and {patience!r}")
        self.keep = keep
        self.patience = patience
        self.smoothed = math.nan
        self.best = math.inf
        self.waited = 0
        self._sum = self._count = 0.0
        evaluator.add_event_handler(Events.STARTED, self._forget)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._publish)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer that is to end."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_if_done)
        engine.add_event_handler(Events.STARTED, self._end_if_done)  # a finished run that is started again

    @property
    def done(self) -> bool:
        """Whether there was no better loss for too long."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"smoothed": self.smoothed, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.smoothed, self.best, self.waited = state["smoothed"], state["best"], state["waited"]

    def _forget(self, evaluator: Engine) -> None:
        self._sum = self._count = 0.0

    def _add(self, evaluator: Engine) -> None:
        losses = evaluator.state.output["losses"]  # type: ignore[call-overload, index]
        self._sum += float(losses.double().sum())
        self._count += len(losses)

    def _publish(self, evaluator: Engine) -> None:
        total, count = idist.all_reduce(self._sum), idist.all_reduce(self._count)
        loss = float(total) / float(count)
        if not math.isfinite(loss):
            raise ValueError("the validation loss is not finite: lower learning_rate, or train without mixed precision")
        self.smoothed = loss if math.isnan(self.smoothed) else self.keep * self.smoothed + (1 - self.keep) * loss
        better = self.smoothed < self.best
        self.best, self.waited = (self.smoothed, 0) if better else (self.best, self.waited + 1)
        evaluator.state.metrics |= {
            "validation_loss": loss,
            "smoothed_loss": self.smoothed,
            "negative_loss": -self.smoothed,
        }

    def _end_if_done(self, engine: Engine) -> None:
        if self.done:
            logger.info("no better validation loss in %d validations: the training ends", self.waited)
            engine.terminate()
