# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import ttest_ind


class WelchTest(NamedTuple):
    """Result of :func:`welch_test`.

    Args:
        difference: mean of ``a`` minus mean of ``b``.
        statistic: t.
        degrees_of_freedom: of Welch and Satterthwaite.
        p_value: two-sided.
    """

    difference: float
    statistic: float
    degrees_of_freedom: float
    p_value: float


def welch_test(a: Sequence[float], b: Sequence[float]) -> WelchTest:
    """Return the two-sided t-test of Welch for two groups of unequal variance, such as a metric over seeds.

    It speaks of the seeds, not of the patients: all runs share one test set.

    Args:
        a: at least two values, one for each run.
        b: the same of the other method.

    Returns:
        The test; where neither group varies at all, everything but the difference is NaN: there is nothing to compare
        the difference with.

    Raises:
        ValueError: for fewer than two values a side, or values that are not finite.

    Reference:
        Welch, "The generalization of Student's problem when several different population variances are involved",
        Biometrika 1947.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in (a, b)]
    for name, values in zip("ab", groups, strict=True):
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(f"{name} must hold at least two values, got {values.tolist()}: run more seeds")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {values.tolist()}")
    difference = float(groups[0].mean() - groups[1].mean())
    if all(np.ptp(values) == 0 for values in groups):
        return WelchTest(difference, math.nan, math.nan, math.nan)
    result = ttest_ind(groups[0], groups[1], equal_var=False)
    return WelchTest(difference, float(result.statistic), float(result.df), float(result.pvalue))
