# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Ranking metrics of scores that are known only up to a bin, with bounds that no order inside the bins can break.

A bin is *tied* when its scores are known to be equal; then nothing is lost. In any other bin the true order may be
anything: the best order ranks all its positives first, the worst ranks them last, and the metric of the true scores
lies between the two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .curves import best_dice_from_counts, roc_auc_from_counts, stable_sum

__all__ = [
    "BinnedCounts",
    "Bracket",
    "binned_average_precision",
    "binned_best_dice",
    "binned_region_overlap",
    "binned_roc_auc",
]

_TINY = torch.finfo(torch.float64).tiny


class BinnedCounts(NamedTuple):
    """Counts per bin of scores, the largest scores first.

    Args:
        thresholds: (G,) smallest score of the bin.
        positives: (G,) int64 number of positives.
        negatives: (G,) int64 number of negatives.
        weights: (G,) int64 summed region weights of the positives, see ``functional.regions``.
        tied: (G,) bool, whether all scores of the bin are equal.
    """

    thresholds: Tensor
    positives: Tensor
    negatives: Tensor
    weights: Tensor
    tied: Tensor


class Bracket(NamedTuple):
    """A value with the smallest and the largest that some order inside the bins would give.

    Args:
        value: the estimate.
        low: lower bound of the exact value.
        high: upper bound of the exact value.
    """

    value: float
    low: float
    high: float

    @property
    def error_bound(self) -> float:
        """Largest possible distance between the estimate and the exact value."""
        return max(self.high - self.value, self.value - self.low, 0.0)


def _running(counts: BinnedCounts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p, n = counts.positives.to(torch.float64), counts.negatives.to(torch.float64)
    return p, n, torch.cumsum(p, 0), torch.cumsum(n, 0)


def binned_roc_auc(counts: BinnedCounts) -> Bracket:
    r"""AUROC of binned scores; the error is at most :math:`\frac{1}{2 P N} \sum_b p_b n_b` over the untied bins.

    Args:
        counts: counts per bin.

    Returns:
        the bracket; NaN where a class is missing.
    """
    p, n, tp, fp = _running(counts)
    value = roc_auc_from_counts(p, n)
    slack = stable_sum(torch.where(counts.tied, 0.0, p * n)) / (2.0 * tp[-1] * fp[-1])
    return Bracket(float(value), float(value - slack), float(value + slack))


def binned_average_precision(counts: BinnedCounts) -> Bracket:
    r"""Average precision of binned scores.

    The estimate takes positives and negatives as evenly mixed inside an untied bin: with :math:`a` true and :math:`f`
    false positives above the bin, :math:`p \int_0^1 (a + p u) / (a + f + (p + n) u) \, du`. The bounds are
    :math:`\sum_{i=1}^{p} (a + i) / (a + i + f + n)` and :math:`p (a + p) / (a + p + f)`.

    Args:
        counts: counts per bin.

    Returns:
        the bracket; NaN where a class is missing.
    """
    p, n, tp, fp = _running(counts)
    if not (tp[-1] > 0 and fp[-1] > 0):
        return Bracket(float("nan"), float("nan"), float("nan"))
    tied = p * tp / (tp + fp).clamp_min(_TINY)
    # the i-th positive of the worst order: all negatives of the bin, and only i positives of it, are above or equal
    worst = p - fp * (torch.special.digamma(tp + fp + 1.0) - torch.special.digamma(tp - p + fp + 1.0))
    best = p * tp / (tp + fp - n).clamp_min(_TINY)
    low, high = torch.where(counts.tied, tied, worst.clamp_min(0.0)), torch.where(counts.tied, tied, best)
    middle = torch.where(counts.tied, tied, p * _mixed_precision(p, n, tp, fp))
    value = torch.minimum(torch.maximum(middle, low), high)
    return Bracket(*(float(stable_sum(part) / tp[-1]) for part in (value, low, high)))


def _mixed_precision(p: Tensor, n: Tensor, tp: Tensor, fp: Tensor) -> Tensor:
    """Mean precision over a bin whose positives and negatives are evenly mixed."""
    size, above = (p + n).clamp_min(_TINY), tp + fp - p - n
    slope = p / size
    ratio = above / size
    mixed = slope + ((tp - p) / size - slope * ratio) * torch.log1p(1.0 / ratio.clamp_min(_TINY))
    return torch.where(above > 0, mixed, slope)


def binned_best_dice(counts: BinnedCounts) -> tuple[Bracket, float]:
    """Best Dice of binned scores over the thresholds at the edges of bins, which are thresholds of the scores too.

    The estimate is therefore never above the exact value; inside an untied bin Dice cannot exceed the best order's.

    Args:
        counts: counts per bin.

    Returns:
        the bracket, NaN without positives; and the threshold of the estimate.
    """
    p, n, tp, fp = _running(counts)
    value, index = best_dice_from_counts(p, n)
    best = 2.0 * tp / (tp + fp - n + tp[-1])
    high = torch.maximum(torch.where(counts.tied, 0.0, best).max(), value)
    return Bracket(float(value), float(value), float(high)), float(counts.thresholds[index])


def binned_region_overlap(counts: BinnedCounts, max_fpr: float = 0.3) -> Bracket:
    """Per-region overlap of binned scores; see ``functional.regions.per_region_overlap``.

    The estimate joins the ends of a bin by a straight line, the bounds go round it: up first, or to the right first.

    Args:
        counts: counts per bin.
        max_fpr: false positive rate at which the curve is cut, in (0, 1].

    Returns:
        the bracket; NaN without regions or negatives.
    """
    w, n = counts.weights.to(torch.float64), counts.negatives.to(torch.float64)
    recall, fp = torch.cumsum(w, 0), torch.cumsum(n, 0)
    end = max_fpr * fp[-1]
    left, right = torch.minimum(fp - n, end), torch.minimum(fp, end)
    share = torch.where(n > 0, 0.5 * (right - left) / n.clamp_min(1.0), 0.0)
    middle = recall - w + w * share
    heights = (middle, torch.where(counts.tied, middle, recall - w), torch.where(counts.tied, middle, recall))
    return Bracket(*(float(stable_sum((right - left) * height) / (end * recall[-1])) for height in heights))
