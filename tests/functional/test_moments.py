# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from monai_anomaly.functional import Moments, ledoit_wolf_share, merge_moments, moments_of


def vectors(count: int, offset: float) -> torch.Tensor:
    """(count, 3, 5), correlated, with a heavy tail, about ``offset``."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    return (torch.randn(count, 3, 5, generator=generator, dtype=torch.float64) ** 3) @ mix + offset


def in_batches(samples: torch.Tensor, size: int) -> Moments:
    return functools.reduce(merge_moments, [moments_of(batch, higher=True) for batch in samples.split(size)])


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_covariance_is_that_of_numpy_however_far_from_zero(size: int, offset: float) -> None:
    samples = vectors(40, offset)
    found = in_batches(samples, size)
    for place in range(3):
        expected = np.cov(vectors(40, 0.0)[:, place].numpy(), rowvar=False)
        np.testing.assert_allclose(found.scatter[place].numpy() / 39, expected, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found.mean[place], samples[:, place].mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_third_and_fourth_moments_by_hand(size: int) -> None:
    samples = vectors(40, 3.0)
    found = in_batches(samples, size)
    centered = samples - samples.mean(0)
    squares = centered.square().sum(2)
    torch.testing.assert_close(found.cubes, (squares[:, :, None] * centered).sum(0), rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(found.fourths, squares.square().sum(0), rtol=1e-9, atol=1e-7)
    assert int(found.number) == 40


@pytest.mark.parametrize("count", [4, 12, 200])
def test_ledoit_wolf_is_that_of_scikit_learn(count: int) -> None:
    samples = vectors(count, 100.0)
    found = ledoit_wolf_share(in_batches(samples, 5))
    expected = [ledoit_wolf(samples[:, place].numpy())[1] for place in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_constant_vectors_are_not_shrunk() -> None:
    assert ledoit_wolf_share(moments_of(torch.ones(4, 2, 3), higher=True)).tolist() == [0, 0]


def test_higher_moments_are_left_out_where_nobody_asks() -> None:
    found = merge_moments(moments_of(vectors(3, 0.0)), moments_of(vectors(4, 1.0)))
    assert found.cubes.numel() == found.fourths.numel() == 0
