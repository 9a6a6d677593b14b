# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers in four bits, two to a byte."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 16
# The step, in standard deviations, at which 16 even levels lose least of a normal variable: 1.15 % of its variance.
NORMAL_STEP = 0.3352


def to_nibbles(values: Tensor, mean: Tensor, step: Tensor) -> Tensor:
    """Round numbers to 16 even levels around a mean, and pack two into a byte.

    ``c = clip(round((x - mean)/step + 7.5), 0, 15)``. What is beyond the outermost levels becomes one of them.

    Args:
        values: x (..., d).
        mean: (d,).
        step: (d,), distance of two levels; where it is 0, all numbers become the mean.

    Returns:
        uint8 (..., ceil(d/2)): the first half of the numbers in the lower bits, the second in the upper ones; where d
        is odd, the last upper one is unused.

    Reference:
        J. Max: "Quantizing for Minimum Distortion", IRE Transactions on Information Theory, 1960, Table II.
    """
    steps = torch.where(step > 0, step, 1)
    codes = ((values - mean) / steps + (LEVELS - 1) / 2).round().clamp(0, LEVELS - 1).to(torch.uint8)
    half = (codes.shape[-1] + 1) // 2
    lower, upper = codes[..., :half], codes[..., half:]
    if upper.shape[-1] < half:
        upper = torch.cat([upper, torch.zeros_like(lower[..., :1])], dim=-1)
    return lower + LEVELS * upper


def from_nibbles(packed: Tensor, mean: Tensor, step: Tensor) -> Tensor:
    """The numbers that :func:`to_nibbles` rounded to, ``mean + (c - 7.5) step``.

    Args:
        packed: uint8 (..., ceil(d/2)).
        mean: (d,).
        step: (d,).

    Returns:
        (..., d), in the type of the mean.
    """
    codes = torch.cat([packed & (LEVELS - 1), packed >> 4], dim=-1)
    return torch.addcmul(mean - step * (LEVELS - 1) / 2, codes[..., : len(mean)].to(mean.dtype), step)
