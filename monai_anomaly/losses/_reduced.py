# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"mean": torch.mean, "sum": torch.sum, "none": lambda value: value}


class ReducedLoss(_Loss):
    """A loss that can be reduced by ``"mean"`` or ``"sum"``, or left as it is by ``"none"``."""

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be one of {tuple(_REDUCTIONS)}, got {reduction!r}.")
        super().__init__(reduction=reduction)

    def reduce(self, value: Tensor) -> Tensor:
        """Reduce an un-reduced loss."""
        return _REDUCTIONS[self.reduction](value)
