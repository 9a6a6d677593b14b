# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_anomaly.metrics import ScoreHistogram

NO_SCORES, NO_WEIGHTS = torch.zeros(0), torch.zeros(0, dtype=torch.int64)


def _histogram(negative: torch.Tensor, positive: torch.Tensor, weights: torch.Tensor) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.update(negative, positive, weights)
    return histogram


def _pixels(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    negative = torch.randn(3000, generator=generator) * 10.0 ** torch.randint(-12, 9, (3000,), generator=generator)
    negative[::3] = negative[::3].round()
    positive = torch.randn(200, generator=generator)
    return negative, positive, torch.randint(1, 2**40, (200,), generator=generator)


def _same(first: ScoreHistogram, second: ScoreHistogram) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.counts(), second.counts(), strict=True))


@pytest.mark.parametrize("cut", [0, 1, 77, 1500])
def test_parts_merge_to_the_whole_exactly(cut: int) -> None:
    negative, positive, weights = _pixels(0)
    whole = _histogram(negative, positive, weights)
    half = cut // 10
    first = _histogram(negative[:cut], positive[:half], weights[:half])
    second = _histogram(negative[cut:], positive[half:], weights[half:])
    once = _histogram(NO_SCORES, NO_SCORES, NO_WEIGHTS)
    for part in (first, second):
        once.merge(part)
    second.merge(first)
    assert _same(once, whole) and _same(second, whole)
    updated = _histogram(negative[cut:], positive[half:], weights[half:])
    updated.update(negative[:cut], positive[:half], weights[:half])
    assert _same(updated, whole)


def test_merge_after_updates_still_watches_for_ties() -> None:
    one, other = _histogram(torch.tensor([1.0]), NO_SCORES, NO_WEIGHTS), ScoreHistogram()
    other.update(torch.tensor([1.0]), NO_SCORES, NO_WEIGHTS)
    one.merge(other)
    assert one.counts().tied.tolist() == [True]
    one.update(torch.tensor([1.0 + 2.0**-20]), NO_SCORES, NO_WEIGHTS)
    assert one.counts().tied.tolist() == [False]
    assert one.counts().negatives.tolist() == [3]


def test_counts_and_thresholds() -> None:
    negative = torch.tensor([0.0, -0.0, 1e-42, -1e-42, 2.5, 2.5, -3.0])
    counts = _histogram(negative, torch.tensor([2.5, 7.0, 7.001]), torch.tensor([5, 6, 7])).counts()
    assert counts.thresholds.tolist() == [7.0, 2.5, 0.0, -3.0]
    assert counts.positives.tolist() == [2, 1, 0, 0]
    assert counts.negatives.tolist() == [0, 2, 4, 1]
    assert counts.weights.tolist() == [13, 5, 0, 0]
    assert counts.tied.tolist() == [False, True, True, True]


def test_infinite_scores_have_their_place() -> None:
    counts = _histogram(torch.tensor([-torch.inf, 1.0]), torch.tensor([torch.inf]), torch.tensor([1])).counts()
    assert counts.thresholds.tolist() == [torch.inf, 1.0, -torch.inf]
    assert counts.tied.all()


def test_different_bins_do_not_merge() -> None:
    with pytest.raises(ValueError, match="16 and 12"):
        ScoreHistogram().merge(ScoreHistogram(12))
    with pytest.raises(ValueError, match=r"10\.\.24"):
        ScoreHistogram(25)
