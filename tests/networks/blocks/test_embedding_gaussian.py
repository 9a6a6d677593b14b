# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from monai_anomaly.networks.blocks import EmbeddingGaussian


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(head: EmbeddingGaussian, healthy: torch.Tensor, size: int = 5) -> EmbeddingGaussian:
    for batch in healthy.split(size):
        head.fit_batch(batch)
    head.finish()
    return head


@pytest.mark.parametrize("grid", [(5,), (4, 3), (2, 3, 2)])
@pytest.mark.parametrize("shrunk", [True, False])
def test_the_score_is_the_distance_of_the_mean_vector(grid: tuple[int, ...], shrunk: bool) -> None:
    healthy, images = random(12, 7, *grid) + 2, random(4, 7, *grid, seed=1)
    head = fitted(EmbeddingGaussian(shrinkage="ledoit_wolf" if shrunk else None), healthy)
    samples, queries = (each.double().flatten(2).mean(2).numpy() for each in (healthy, images))
    inverse = np.linalg.inv(np.cov(samples, rowvar=False) + 0.01 * np.eye(7))
    if shrunk:
        inverse = LedoitWolf().fit(samples).get_precision()
    for index, query in enumerate(queries - samples.mean(0)):
        assert head.scored(images)[1][index].item() == pytest.approx((query @ inverse @ query) ** 0.5, rel=1e-5)


def test_moments_and_estimate_are_those_of_scikit_learn_however_the_stream_is_cut() -> None:
    mix = random(25, 25, seed=2) @ torch.diag(torch.linspace(0.1, 3, 25))
    healthy = torch.einsum("de,behw->bdhw", mix, random(40, 25, 3, 3) ** 3) + 5
    head = fitted(EmbeddingGaussian(), healthy[:33], size=4)
    whole = EmbeddingGaussian()
    for batch in healthy.split(7):
        whole.fit_batch(batch)
    samples = healthy.double().flatten(2).mean(2).numpy()
    np.testing.assert_allclose(whole.center[0], samples.mean(0), rtol=1e-12)
    covariance = np.cov(samples, rowvar=False, bias=True)
    np.testing.assert_allclose(whole.scatter[0] / 40, covariance, rtol=1e-8, atol=1e-8 * np.diag(covariance).mean())
    # what is kept of it is the inverse of its factor, in float32
    estimate = np.linalg.inv(head.whitening[0].double().T @ head.whitening[0].double())
    expected = LedoitWolf().fit(samples[:33])
    assert 0.1 < expected.shrinkage_ < 0.9
    np.testing.assert_allclose(estimate, expected.covariance_, rtol=1e-4, atol=1e-5 * np.diag(covariance).mean())


def test_the_map_shares_the_score_out_among_the_places() -> None:
    healthy, images = random(30, 4, 3, 2), random(3, 4, 3, 2, seed=1)
    head = fitted(EmbeddingGaussian(), healthy)
    found, score = head.scored(images)
    torch.testing.assert_close(found.mean((2, 3)), score)
    assert torch.equal(found, head(images))
    whitening, mean = head.whitening[0].double(), head.mean.double()
    inverse = whitening.T @ whitening
    for index, image in enumerate(images.double()):
        whole = image.mean((1, 2)) - mean
        for place in np.ndindex(3, 2):
            expected = whole @ inverse @ (image[(slice(None), *place)] - mean) / (whole @ inverse @ whole).sqrt()
            assert found[(index, 0, *place)].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_place_that_makes_an_image_abnormal_is_the_largest_of_its_map() -> None:
    head = fitted(EmbeddingGaussian(), random(60, 4, 6, 6))
    image = random(1, 4, 6, 6, seed=1)
    image[0, :, 2, 4] += 40
    assert int(head(image).argmax()) == 2 * 6 + 4


def test_what_is_kept_does_not_depend_on_the_grid_nor_the_order_of_the_places() -> None:
    healthy = random(9, 4, 6, 6)
    head, mixed = fitted(EmbeddingGaussian(), healthy), fitted(EmbeddingGaussian(), healthy.flatten(2).flip(2))
    assert head.whitening.shape == (1, 4, 4) and head.mean.shape == (4,)
    torch.testing.assert_close(mixed.whitening, head.whitening)
    torch.testing.assert_close(mixed.scored(healthy.flatten(2))[1], head.scored(healthy)[1])


def test_the_mean_image_scores_zero_everywhere_alike() -> None:
    head = fitted(EmbeddingGaussian(), random(9, 4, 3))
    found, score = head.scored(head.mean[None, :, None].expand(2, 4, 3))
    assert not found.any() and not score.any()


def test_errors() -> None:
    with pytest.raises(ValueError, match="shrinkage must be None or 'ledoit_wolf', got 'oas'"):
        EmbeddingGaussian(shrinkage="oas")
    with pytest.raises(ValueError, match="regularizer must not be negative, got -1"):
        EmbeddingGaussian(regularizer=-1)
    with pytest.raises(ValueError, match=r"\(4,\) after B, got \(2, 5\)"):
        fitted(EmbeddingGaussian(), random(9, 4, 3))(random(2, 5, 3))
    with pytest.raises(RuntimeError, match="two images at least"):
        fitted(EmbeddingGaussian(), random(1, 4, 3))
