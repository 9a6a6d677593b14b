# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss


class WeightedSumLoss(_Loss):
    """Sum of losses of the same prediction and target, each with a weight.

    Args:
        losses: the losses, each reduced to a scalar.
        weights: one weight for each; MemAE adds the address entropy with 0.0002.

    Raises:
        ValueError: when the numbers of losses and weights differ.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if len(losses) != len(weights) or not losses:
            raise ValueError(f"losses and weights must match one to one, got {len(losses)} and {len(weights)}.")
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights)

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"weights={self.weights}"

    def forward(self, prediction: Any, target: Tensor) -> Tensor:
        """Weighted sum, a scalar."""
        values = [weight * loss(prediction, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(values).sum()
