# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import pytest
import torch

from monai_anomaly.functional.binned_curves import (
    BinnedCounts,
    Bracket,
    binned_average_precision,
    binned_best_dice,
    binned_region_overlap,
    binned_roc_auc,
)
from monai_anomaly.functional.curves import (
    average_precision_from_counts,
    best_dice_from_counts,
    region_overlap_from_counts,
    roc_auc_from_counts,
)

BINS = [(0, 2), (2, 1), (1, 2), (2, 2), (0, 1)]  # (positives, negatives), the largest scores first


def _bin_orders(positives: int, negatives: int):
    """All orders of a bin's members, and all ways to tie neighbors."""
    members = [1] * positives + [0] * negatives
    for order in set(itertools.permutations(members)):
        for cuts in itertools.product((False, True), repeat=max(len(order) - 1, 0)):
            groups = [[order[0]]]
            for member, cut in zip(order[1:], cuts, strict=True):
                if cut:
                    groups.append([member])
                else:
                    groups[-1].append(member)
            yield tuple((sum(group), len(group) - sum(group)) for group in groups)


def _extremes(metric) -> tuple[float, float]:
    """The range of a metric over all true orders, a few bins free at a time."""
    values = []
    for free in itertools.combinations(range(len(BINS)), 2):
        choices = [set(_bin_orders(*BINS[i])) if i in free else {(BINS[i],)} for i in range(len(BINS))]
        for choice in itertools.product(*choices):
            groups = torch.tensor([group for part in choice for group in part])
            values.append(metric(groups[:, 0], groups[:, 1]))
    return min(values), max(values)


def _counts(tied: bool) -> BinnedCounts:
    positives, negatives = torch.tensor(BINS).T
    size = len(BINS)
    return BinnedCounts(torch.arange(size).flip(0), positives, negatives, positives, torch.full((size,), tied))


METRICS = {
    "auroc": (binned_roc_auc, roc_auc_from_counts),
    "ap": (binned_average_precision, average_precision_from_counts),
    "dice": (lambda counts: binned_best_dice(counts)[0], lambda p, n: best_dice_from_counts(p, n)[0]),
    "pro": (binned_region_overlap, region_overlap_from_counts),
    "pro_cut": (lambda c: binned_region_overlap(c, 0.5), lambda p, n: region_overlap_from_counts(p, n, 0.5)),
}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_order_inside_the_bins_leaves_the_bracket(name: str) -> None:
    binned, exact = METRICS[name]
    low, high = _extremes(lambda p, n: float(exact(p, n)))
    bracket = binned(_counts(tied=False))
    assert bracket.low - 1e-12 <= low < high <= bracket.high + 1e-12
    assert bracket.low <= bracket.value <= bracket.high
    assert bracket.error_bound > 0.0


@pytest.mark.parametrize("name", sorted(METRICS))
def test_tied_bins_are_exact(name: str) -> None:
    binned, exact = METRICS[name]
    counts = _counts(tied=True)
    bracket = binned(counts)
    assert bracket.value == pytest.approx(float(exact(counts.positives, counts.negatives)), abs=1e-15)
    assert bracket.error_bound == pytest.approx(0.0, abs=1e-15)


def test_auroc_bound_is_half_the_pairs_that_share_a_bin() -> None:
    positives, negatives = torch.tensor(BINS).T
    pairs = int((positives * negatives).sum())
    expected = pairs / (2.0 * int(positives.sum()) * int(negatives.sum()))
    assert binned_roc_auc(_counts(tied=False)).error_bound == pytest.approx(expected, abs=1e-15)


def test_mixed_bin_estimate_is_the_integral() -> None:
    counts = BinnedCounts(
        torch.arange(2), torch.tensor([3, 40]), torch.tensor([5, 60]), torch.ones(2), torch.zeros(2) > 0
    )
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    second = ((3 + 40 * u) / (8 + 100 * u)).mean()
    expected = (3 * 3 / 8 + 40 * float(second)) / 43
    assert binned_average_precision(counts).value == pytest.approx(expected, abs=1e-9)


def test_error_bound_is_the_larger_side() -> None:
    assert Bracket(0.5, 0.4, 0.7).error_bound == pytest.approx(0.2)
    assert Bracket(0.5, 0.1, 0.7).error_bound == pytest.approx(0.4)
