# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""How many anomalies an image gets."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from pictures import pictures
from scipy import stats

from monai_anomaly.transforms import RandAnomaly, RandNSA, RandomRectangle, RandSmoothIntensity, UniformPlacement
from monai_anomaly.transforms.synthesis.plan import Frame, Patch

IMAGE = torch.zeros(1, 12, 12)


class Nothing:
    """Changes nothing, and fails at the turns that are named."""

    smallest = 1

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        self.fails = fails
        self.turn = 0

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        self.turn += 1
        return None if self.turn in self.fails else patch

    def apply(self, batch: Any) -> torch.Tensor:
        return torch.as_tensor(batch.boxes)


class Coins(np.random.RandomState):
    """Gives one number after the other instead of random ones in [0, 1)."""

    def __init__(self, thrown: tuple[float, ...]) -> None:
        super().__init__(0)
        self.left = [0.0, *thrown]  # the first decides whether there is an anomaly at all

    def rand(self, *size: int) -> Any:
        return self.left.pop(0)


def number_for(thrown: tuple[float, ...], count: str, corruptor: Nothing | None = None) -> int:
    method = RandAnomaly(
        RandomRectangle(),
        UniformPlacement(),
        corruptor or Nothing(),
        max_anomalies=len(thrown) + 1,
        anomaly_count=count,
        max_attempts=1,
    )
    return len(method.plan(Coins(thrown), IMAGE).patches)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_both_distributions_exactly(most: int) -> None:
    every = list(product((0.25, 0.75), repeat=most - 1))  # tails and heads, each of these as likely
    found = {count: Counter(number_for(thrown, count) for thrown in every) for count in ("geometric", "binomial")}
    for number in range(1, most + 1):
        halved = Fraction(1, 2 ** min(number, most - 1))
        assert Fraction(found["geometric"][number], len(every)) == halved
        assert Fraction(found["binomial"][number], len(every)) == Fraction(comb(most - 1, number - 1), 2 ** (most - 1))
    assert sum(found["binomial"].values()) == len(every)


def test_a_part_that_cannot_be_had_ends_only_the_geometric_count() -> None:
    heads = (0.75, 0.75)
    assert number_for(heads, "geometric", Nothing(fails=(2,))) == 1
    assert number_for(heads, "binomial", Nothing(fails=(2,))) == 2


def _counts(method: RandAnomaly, number: int, sources: Any = None) -> np.ndarray:
    image, rng = pictures(1, 40, 40)[0], np.random.RandomState(0)
    plans = [method.plan(rng, image, None, sources) for _ in range(number)]
    return np.bincount([len(plan.patches) for plan in plans], minlength=method.max_anomalies + 1)


def test_nsa_throws_a_coin_for_each_further_part() -> None:
    method = RandNSA(preset="mvtec", background="none")
    assert method.max_anomalies == 3
    counts = _counts(method, 600, pictures(1, 40, 40)[1:])
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], 600 * np.array([0.25, 0.5, 0.25])).pvalue > 0.01
    assert stats.chisquare(counts[1:], 600 * np.array([0.5, 0.25, 0.25])).pvalue < 1e-6


def test_many_tasks_stops_at_the_first_tails_unless_told_otherwise() -> None:
    assert RandSmoothIntensity().anomaly_count == "geometric"
    counts = _counts(RandSmoothIntensity(max_anomalies=3, anomaly_count="binomial"), 600)
    assert stats.chisquare(counts[1:], 600 * np.array([0.25, 0.5, 0.25])).pvalue > 0.01
    stopping = _counts(RandNSA(anomaly_count="geometric", max_anomalies=3), 600, pictures(1, 40, 40)[1:])
    assert stats.chisquare(stopping[1:], 600 * np.array([0.5, 0.25, 0.25])).pvalue > 0.01


def test_an_unknown_count_is_refused() -> None:
    with pytest.raises(ValueError, match="anomaly_count must be one of"):
        RandSmoothIntensity(anomaly_count="poisson")
