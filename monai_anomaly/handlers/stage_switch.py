# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from ..utils import unwrap


class StageSwitch:
    """Moves a network on to the second stage of its training, after a share of all steps.

    The stage follows from the number of the step alone, so a resumed run is in the one in which an unbroken run would
    be.

    Args:
        network: network that is trained, possibly wrapped for distributed training; its ``begin_stage`` takes 0 or 1.
        share: of all steps that the first stage has, rounded, but one at least; in (0, 1). Published default of DeSTSeg
            0.2.

    Raises:
        ValueError: when the share is outside its range, or the network has no stages.
    """

    def __init__(self, network: nn.Module, share: float = 0.2) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0, 1), got {share!r}")
        if not hasattr(unwrap(network), "begin_stage"):
            raise ValueError(f"network must have begin_stage, got {type(unwrap(network)).__name__}")
        self.network: Any = unwrap(network)
        self.share = share

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._switch)

    def _switch(self, engine: Any) -> None:
        steps = engine.state.max_epochs * engine.state.epoch_length
        first = max(1, round(self.share * steps))
        self.network.begin_stage(int(engine.state.iteration > first))
