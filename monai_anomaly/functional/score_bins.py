# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Bins for scores of unknown range: the leading bits of the floating-point number itself.

The bits of a float32, with those of negative numbers mirrored, are an integer that grows with the number. Its leading
bits therefore form bins that keep the order of all numbers from 1e-38 to 1e38 of either sign, with the same relative
width everywhere: no range has to be known, and a map with values near 1e-9 is resolved as finely as one near 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MAX_BITS", "MIN_BITS", "bin_lower_edges", "check_bits", "score_bins", "subnormal_bins"]

#: sign and exponent need nine bits; with fewer, bins mix numbers that differ by more than a factor of two
MIN_BITS = 10
MAX_BITS = 24
_FLOAT_BITS = 32
_MAGNITUDE = 0x7FFFFFFF


def check_bits(bits: int) -> None:
    """Refuse a number of leading bits that makes no useful bins."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"bits must be in {MIN_BITS}..{MAX_BITS}, got {bits}.")


def score_bins(scores: Tensor, bits: int = 16) -> Tensor:
    """Return the bin of each score; bins increase with the score.

    A bin is at most ``2 ** (9 - bits)`` wide relative to the scores in it (0.8 % for 16 bits).

    Args:
        scores: any shape, float32, no NaN.
        bits: number of leading bits kept, 10 to 24.

    Raises:
        ValueError: ``bits`` is out of range or scores are not float32.

    Returns:
        the shape of ``scores``, int32 in [0, 2 ** bits).
    """
    check_bits(bits)
    if scores.dtype != torch.float32:
        raise ValueError(f"scores must be float32, got {scores.dtype}.")
    # adding zero turns the negative zero, which equals zero but has another sign bit, into zero
    ordered = (scores + 0.0).view(torch.int32)
    ordered = ordered ^ ((ordered >> (_FLOAT_BITS - 1)) & _MAGNITUDE)
    return (ordered >> (_FLOAT_BITS - bits)) + 2 ** (bits - 1)


def subnormal_bins(bits: int = 16) -> slice:
    """Return the bins of numbers smaller in magnitude than the least normal float32 (1.2e-38), which count as zero."""
    half, width = 2 ** (bits - 1), 2 ** (bits - 9)
    return slice(half - width, half + width)


def bin_lower_edges(bits: int = 16) -> Tensor:
    """Return the smallest score of each bin: (2 ** bits,) float32, ascending; NaN for bins that hold no number."""
    ordered = (torch.arange(2**bits, dtype=torch.int64) - 2 ** (bits - 1)) << (_FLOAT_BITS - bits)
    ordered = ordered.to(torch.int32)
    return (ordered ^ ((ordered >> (_FLOAT_BITS - 1)) & _MAGNITUDE)).view(torch.float32)
