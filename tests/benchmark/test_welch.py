# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from statistics import mean, variance

import pytest
from scipy.special import betainc

from monai_anomaly.benchmark.welch import welch_test


@pytest.mark.parametrize("b", [[0.71, 0.74], [0.80, 0.79, 0.83, 0.90], [0.8, 0.8, 0.8]])
def test_equals_the_formula(b: list[float]) -> None:
    a = [0.81, 0.86, 0.84]
    error_a, error_b = variance(a) / len(a), variance(b) / len(b)
    t = (mean(a) - mean(b)) / math.sqrt(error_a + error_b)
    df = (error_a + error_b) ** 2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
    found = welch_test(a, b)
    assert found.difference == pytest.approx(mean(a) - mean(b))
    assert (found.statistic, found.degrees_of_freedom) == pytest.approx((t, df))
    assert found.p_value == pytest.approx(betainc(df / 2, 0.5, df / (df + t**2)))


def test_groups_that_do_not_vary_cannot_be_compared() -> None:
    found = welch_test([0.5, 0.5], [0.7, 0.7, 0.7])
    assert found.difference == pytest.approx(-0.2)
    assert all(math.isnan(value) for value in found[1:])


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [([0.1], [0.1, 0.2], "a must hold at least two"), ([0.1, 0.2], [], "b must hold"), ([0, math.nan], [1, 2], "a mu")],
)
def test_refuses_too_little(a: list[float], b: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        welch_test(a, b)
