# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..utils import unwrap


class WeightAverage:
    """Keeps an exponential moving average of a network's weights, by PyTorch's ``AveragedModel``.

    The n-th update (from 0) keeps ``min(decay, (1 + n) / (10 + n))`` of the average, the first nothing, so that the
    random weights of the beginning are soon forgotten.

    Args:
        network: network that is trained, possibly wrapped for distributed training.
        decay: largest share that is kept, in [0, 1); published default 0.9999.
        every: iterations between two updates: those over which gradients are accumulated. Default 1.

    Raises:
        ValueError: when an argument is outside its range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.9999, every: int = 1) -> None:
        if not 0 <= decay < 1 or every < 1:
            raise ValueError(f"decay must be in [0, 1) and every at least 1, got {decay!r} and {every!r}")
        self.network = network
        self.decay = decay
        self.every = every
        self._average = AveragedModel(unwrap(network), multi_avg_fn=self._mix).requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        """The network with averaged weights."""
        module: nn.Module = self._average.module
        return module

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self._average.load_state_dict(state)

    def _update(self, engine: Any) -> None:
        within = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if within % self.every == 0 or within == engine.state.epoch_length:
            self._average.update_parameters(unwrap(self.network))

    @torch.no_grad()
    def _mix(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        kept = min(self.decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - kept)
