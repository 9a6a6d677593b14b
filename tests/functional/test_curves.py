# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall_curve
from sklearn.metrics import roc_curve as sklearn_roc_curve

from monai_anomaly.functional.curves import (
    average_precision,
    average_precision_from_counts,
    best_dice,
    best_dice_from_counts,
    count_positive_scores,
    count_scores,
    precision_recall_curve,
    region_overlap_from_counts,
    roc_auc,
    roc_auc_from_counts,
    roc_curve,
    stable_sum,
)


def _sample(
    seed: int, decimals: int, size: int = 400, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(size, generator=generator) < 0.2).to(torch.int64)
    scores = torch.randn(size, generator=generator, dtype=dtype) + targets
    return scores.round(decimals=decimals), targets


def slow_roc_auc(scores: torch.Tensor, targets: torch.Tensor) -> float:
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[targets == 1] for n in scores[targets == 0]]
    return sum(wins) / len(wins)


def slow_best_dice(scores: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    best = (-1.0, 0.0)
    for threshold in sorted(set(scores.tolist()), reverse=True):
        predicted = scores >= threshold
        dice = 2.0 * int((predicted & (targets == 1)).sum()) / int(predicted.sum() + (targets == 1).sum())
        best = max(best, (dice, threshold), key=lambda pair: pair[0])
    return best


# decimals: no ties, some ties, heavy ties, all tied
@pytest.mark.parametrize("decimals", [6, 1, 0, -2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_slow_formulas_and_scikit_learn(decimals: int, dtype: torch.dtype) -> None:
    scores, targets = _sample(3, decimals, dtype=dtype)
    assert roc_auc(scores, targets) == pytest.approx(slow_roc_auc(scores, targets), abs=1e-12)
    assert roc_auc(scores, targets) == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores), abs=1e-12)
    dice, threshold = best_dice(scores, targets)
    expected = slow_best_dice(scores, targets)
    assert dice == pytest.approx(expected[0], abs=1e-12)
    assert threshold == pytest.approx(expected[1], abs=0)


@pytest.mark.parametrize("decimals", [6, 1])
def test_curves_equal_scikit_learn(decimals: int) -> None:
    scores, targets = _sample(5, decimals)
    fpr, tpr, thresholds = roc_curve(scores, targets)
    expected = sklearn_roc_curve(targets.numpy(), scores.numpy(), drop_intermediate=False)
    for got, want in zip((fpr, tpr, thresholds), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want, atol=1e-12)
    precision, recall, thresholds = precision_recall_curve(scores, targets)
    expected = sklearn_precision_recall_curve(targets.numpy(), scores.numpy())
    np.testing.assert_allclose(precision.flip(0).numpy(), expected[0], atol=1e-12)
    np.testing.assert_allclose(recall.flip(0).numpy(), expected[1], atol=1e-12)
    np.testing.assert_allclose(thresholds[1:].flip(0).numpy(), expected[2], atol=0)


def test_order_of_samples_changes_no_bit() -> None:
    scores, targets = _sample(7, 1, size=20000)
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    for metric in (roc_auc, average_precision, best_dice):
        assert metric(scores, targets) == metric(scores[shuffled], targets[shuffled])


def test_number_of_threads_changes_no_bit() -> None:
    values = torch.rand(300_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threads, sums = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            sums.add(float(stable_sum(values)))
    finally:
        torch.set_num_threads(threads)
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(float(np.sum(values.numpy())), rel=1e-12)


def test_counting_by_positives_keeps_every_metric() -> None:
    scores, targets = _sample(11, 1)
    every = count_scores(scores, targets)
    weights = torch.randint(1, 9, (int(targets.sum()),), generator=torch.Generator().manual_seed(2))
    few, summed = count_positive_scores(scores[targets == 1], scores[targets == 0], weights)
    table = dict.fromkeys(every.thresholds.tolist(), 0)
    for score, weight in zip(scores[targets == 1].tolist(), weights.tolist(), strict=True):
        table[score] += weight
    full = torch.tensor(list(table.values()))
    assert roc_auc_from_counts(*few[1:]) == pytest.approx(float(roc_auc_from_counts(*every[1:])), abs=1e-14)
    assert average_precision_from_counts(*few[1:]) == pytest.approx(float(average_precision_from_counts(*every[1:])))
    dice, index = best_dice_from_counts(*few[1:])
    expected, position = best_dice_from_counts(*every[1:])
    assert (dice, few.thresholds[index]) == (expected, every.thresholds[position])
    for limit in (0.05, 0.3, 1.0):
        got = region_overlap_from_counts(summed, few.negatives, limit)
        assert got == pytest.approx(float(region_overlap_from_counts(full, every.negatives, limit)), abs=1e-14)


def test_batched_counts_equal_one_by_one() -> None:
    generator = torch.Generator().manual_seed(4)
    positives, negatives = torch.randint(0, 5, (2, 6, 30), generator=generator)
    for function in (roc_auc_from_counts, average_precision_from_counts, lambda p, n: best_dice_from_counts(p, n)[0]):
        together = function(positives, negatives)
        assert together.tolist() == [float(function(p, n)) for p, n in zip(positives, negatives, strict=True)]


def test_missing_class_gives_nan_from_counts() -> None:
    some, none = torch.tensor([1, 2, 0]), torch.zeros(3, dtype=torch.int64)
    for positives, negatives in ((some, none), (none, some)):
        assert torch.isnan(roc_auc_from_counts(positives, negatives))
        assert torch.isnan(average_precision_from_counts(positives, negatives))
        assert torch.isnan(region_overlap_from_counts(positives, negatives))


@pytest.mark.parametrize("prevalence", [0.1, 0.37])
def test_constant_score_gives_chance_values(prevalence: float) -> None:
    targets = torch.zeros(1000)
    targets[: int(1000 * prevalence)] = 1
    scores = torch.full((1000,), 3.5)
    assert roc_auc(scores, targets) == 0.5
    assert average_precision(scores, targets) == pytest.approx(prevalence)
    assert best_dice(scores, targets) == (pytest.approx(2 * prevalence / (1 + prevalence)), 3.5)


def test_infinite_scores_are_ranked() -> None:
    scores, targets = torch.tensor([float("inf"), 1.0, float("-inf")]), torch.tensor([1, 0, 0])
    assert roc_auc(scores, targets) == 1.0


@pytest.mark.parametrize("metric", [roc_auc, average_precision, best_dice, roc_curve, precision_recall_curve])
def test_undefined_rankings_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="no positive"):
        metric(torch.rand(4), torch.zeros(4))
    with pytest.raises(ValueError, match="no negative"):
        metric(torch.rand(4), torch.ones(4))
    with pytest.raises(ValueError, match="NaN"):
        metric(torch.tensor([0.0, float("nan")]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="0 or 1"):
        metric(torch.rand(3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="same number"):
        metric(torch.rand(3), torch.tensor([0, 1]))
