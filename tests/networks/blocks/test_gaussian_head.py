# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from monai_anomaly.networks.blocks import GaussianHead


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(head: GaussianHead, healthy: torch.Tensor, size: int = 7) -> GaussianHead:
    for batch in healthy.split(size):
        head.fit_batch(batch)
    head.finish()
    return head


@pytest.mark.parametrize("grid", [(4,), (3, 2), (2, 2, 3)])
def test_distances_are_those_of_scipy(grid: tuple[int, ...]) -> None:
    healthy, images = random(30, 6, *grid) * 3 + 5, random(4, 6, *grid, seed=1) * 3
    found = fitted(GaussianHead(), healthy)(images)
    assert found.shape == (4, 1, *grid)
    for place in np.ndindex(grid):
        samples = healthy[(slice(None), slice(None), *place)].double().numpy()
        inverse = np.linalg.inv(np.cov(samples, rowvar=False) + 0.01 * np.eye(6))
        for image in range(4):
            query = images[(image, slice(None), *place)].double().numpy()
            expected = mahalanobis(query, samples.mean(0), inverse)
            assert found[(image, 0, *place)].item() == pytest.approx(expected, rel=1e-5)


def test_whole_images_with_few_of_them_as_in_scikit_learn() -> None:
    healthy, images = random(12, 20) + 2, random(5, 20, seed=1)
    found = fitted(GaussianHead(shrinkage="ledoit_wolf"), healthy, size=5)(images)
    expected = LedoitWolf().fit(healthy.double().numpy()).mahalanobis(images.double().numpy()) ** 0.5
    assert found.shape == (5, 1)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-5)


def test_some_features_are_drawn_once_and_used_in_fit_and_forward() -> None:
    healthy, images = random(30, 10, 2, 2), random(3, 10, 2, 2, seed=1)
    head = fitted(GaussianHead(num_features=4, seed=3), healthy)
    kept = head.chosen
    assert kept.shape == (4,) and bool((kept.diff() > 0).all()) and head.whitening.shape == (4, 4, 4)
    torch.testing.assert_close(head(images), fitted(GaussianHead(), healthy[:, kept])(images[:, kept]))
    other = fitted(GaussianHead(num_features=4, seed=4), healthy)
    assert not torch.equal(kept, other.chosen)
    assert fitted(GaussianHead(num_features=40), healthy).chosen.tolist() == list(range(10))


def test_a_mean_far_from_zero_does_no_harm() -> None:
    healthy, images = random(50, 4, 2).double(), random(5, 4, 2, seed=1).double()
    near = fitted(GaussianHead(), healthy)
    far = fitted(GaussianHead(), healthy + 1e4)
    torch.testing.assert_close(near.whitening, far.whitening, rtol=1e-6, atol=1e-6)
    # float32 holds 1e4 to a thousandth
    torch.testing.assert_close(near(images), far(images + 1e4), rtol=0, atol=2e-2)


def test_places_beyond_one_chunk_of_factors() -> None:
    healthy = random(9, 3, 10, 10)
    head = fitted(GaussianHead(), healthy)
    small = fitted(GaussianHead(), healthy[:, :, 9:, 5:])
    torch.testing.assert_close(head(healthy)[:, :, 9:, 5:], small(healthy[:, :, 9:, 5:]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "got 0"),
        ({"regularizer": -1.0}, "got -1.0"),
        ({"shrinkage": "oas"}, "got 'oas'"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianHead(**arguments)  # type: ignore[arg-type]


def test_what_cannot_be_fitted_says_so() -> None:
    with pytest.raises(RuntimeError, match="two images at least"):
        fitted(GaussianHead(), random(1, 3))
    with pytest.raises(RuntimeError, match="singular"):
        fitted(GaussianHead(regularizer=0), torch.ones(5, 3))
    with pytest.raises(ValueError, match=r"\(3, 2, 2\) after B, got \(1, 3, 2, 4\)"):
        fitted(GaussianHead(), random(5, 3, 2, 2))(random(1, 3, 2, 4))
