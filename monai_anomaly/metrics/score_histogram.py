# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..functional.binned_curves import BinnedCounts
from ..functional.score_bins import bin_lower_edges, check_bits, score_bins, subnormal_bins
from .gather import reduce_extreme, reduce_sum

__all__ = ["ScoreHistogram"]

# a piece of the pixels that stays in the processor's cache while it is binned
CHUNK = 2**17


class ScoreHistogram:
    """Counts of positives, negatives and region weights per bin of scores, in a memory that does not grow.

    Histograms of parts of the data add up to that of the whole exactly, in any order: all entries are integers. Each
    bin also remembers its score as long as it has seen only one, so that maps of few distinct values lose nothing.

    Args:
        bits: the bins are the 2 ** bits values of a float32's leading bits, see ``functional.score_bins``; 10 to 24.
    """

    def __init__(self, bits: int = 16) -> None:
        check_bits(bits)
        self._tiny = subnormal_bins(bits)
        self.bits = bits
        self.positives, self.negatives, self.weights = torch.zeros(3, 2**bits, dtype=torch.int64)
        # the only score of a bin is both its lowest and its highest; empty: +inf, -inf; several: -inf, +inf
        self._low, self._high = torch.full((2**bits,), torch.inf), torch.full((2**bits,), -torch.inf)
        self._several = torch.zeros(2**bits, dtype=torch.bool)
        # numbers too small to be normal count as zero, so their bins need not be watched
        self._several[self._tiny] = True

    def update(self, negative: Tensor, positive: Tensor, weights: Tensor) -> None:
        """Add pixels.

        Args:
            negative: (N,) float32 scores of normal pixels.
            positive: (P,) float32 scores of abnormal pixels.
            weights: (P,) int64 region weights of the abnormal pixels.
        """
        for part in negative.split(CHUNK):
            self.negatives += self._count(part, score_bins(part, self.bits))
        bins = score_bins(positive, self.bits)
        self.positives += self._count(positive, bins)
        self.weights.index_add_(0, bins, weights)

    def _count(self, scores: Tensor, bins: Tensor) -> Tensor:
        where = bins.numpy()
        several = self._several.numpy().take(where)
        if not several.all():
            watched = np.flatnonzero(~several)
            self._watch(scores.numpy()[watched], where[watched])
        return torch.from_numpy(np.bincount(where, minlength=2**self.bits))

    def _watch(self, scores: np.ndarray, bins: np.ndarray) -> None:
        """Find the bins that have now seen two different scores."""
        low, high = self._low.numpy(), self._high.numpy()
        fresh = low[bins] > high[bins]
        low[bins[fresh]] = scores[fresh]
        high[bins[fresh]] = low[bins[fresh]]
        several = bins[scores != low[bins]]
        self._several.numpy()[several] = True
        low[several], high[several] = -np.inf, np.inf

    def merge(self, other: ScoreHistogram) -> None:
        """Add the counts of another histogram with the same bins."""
        if other.bits != self.bits:
            raise ValueError(f"histograms to merge must have the same bits, got {self.bits} and {other.bits}.")
        self._set(
            torch.stack([self.positives, self.negatives, self.weights])
            + torch.stack([other.positives, other.negatives, other.weights]),
            torch.minimum(self._low, other._low),
            torch.maximum(self._high, other._high),
        )

    def gathered(self) -> ScoreHistogram:
        """Return the sum over all ranks."""
        total = ScoreHistogram(self.bits)
        counts = reduce_sum(torch.stack([self.positives, self.negatives, self.weights]))
        total._set(counts, reduce_extreme(self._low, "MIN"), reduce_extreme(self._high, "MAX"))
        return total

    def _set(self, counts: Tensor, low: Tensor, high: Tensor) -> None:
        self.positives, self.negatives, self.weights = counts
        self._several |= low < high
        self._low = torch.where(low < high, -torch.inf, low)
        self._high = torch.where(low < high, torch.inf, high)

    def counts(self) -> BinnedCounts:
        """Return the occupied bins, the largest scores first; numbers too small to be normal count as one tied zero."""
        zero = self._tiny.start
        stacked = torch.stack([self.positives, self.negatives, self.weights])
        stacked[:, zero] = stacked[:, self._tiny].sum(1)
        stacked[:, zero + 1 : self._tiny.stop] = 0
        single = self._low == self._high
        thresholds = torch.where(single, self._low, bin_lower_edges(self.bits))
        thresholds[zero], single[zero] = 0.0, True
        occupied = (stacked[0] + stacked[1]).nonzero().flatten().flip(0)
        positives, negatives, weights = stacked[:, occupied]
        return BinnedCounts(thresholds[occupied], positives, negatives, weights, single[occupied])
