# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines import IterationEvents
from torch.nn.utils import clip_grad_norm_

from ..utils import unwrap


class GradientClipper:
    """Scales gradients down to a largest norm before each step of a MONAI trainer's optimizer.

    Args:
        max_norm: largest norm of all gradients together, above 0; published default of the image-conditioned diffusion
            code 1. None: gradients stay as they are.

    Raises:
        ValueError: when the norm is not above 0.
    """

    def __init__(self, max_norm: float | None = 1.0) -> None:
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"max_norm must be above 0 or None, got {max_norm!r}")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.max_norm is not None:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Any) -> None:
        assert self.max_norm is not None
        place = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if place % engine.accumulation_steps and place != engine.state.epoch_length:
            return  # gradients are still being added up
        if getattr(engine, "scaler", None) is not None:
            engine.scaler.unscale_(engine.optimizer)
        clip_grad_norm_(unwrap(engine.network).parameters(), self.max_norm)
