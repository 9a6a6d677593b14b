# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from monai_anomaly.data.audit.baselines import (
    SectionFeatures,
    baseline_scores,
    foreground_area,
    nearest_distances,
    otsu_thresholds,
    pca_errors,
    rank_scores,
)


def _images(n: int, seed: int, axes: int = 2, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100 * torch.rand((n, *[side] * axes), generator=generator) ** 2


def _features(images: torch.Tensor, z: torch.Tensor | None = None) -> SectionFeatures:
    flat = images.flatten(1).double()
    return SectionFeatures(images, flat.mean(1), flat.std(1, correction=0), flat.var(1), z)


def test_otsu_agrees_with_scikit_image() -> None:
    images = torch.cat([_images(3, 0), -50 + 3 * _images(3, 1)])
    for image, threshold in zip(images, otsu_thresholds(images), strict=True):
        bin_width = float(image.max() - image.min()) / 256
        assert abs(float(threshold) - threshold_otsu(image.numpy(), 256)) <= bin_width


def test_foreground_area_counts_pixels() -> None:
    images = torch.zeros(3, 64, 64)
    images[0, :16] = 10.0
    images[1, :, :48] = 10.0
    assert foreground_area(images).tolist() == [0.25, 0.75, 0.0]


@pytest.mark.parametrize(("n", "axes", "side"), [(40, 2, 64), (8, 2, 64), (90, 2, 16), (35, 3, 16)])
def test_pca_errors_equal_the_projection_written_out(n: int, axes: int, side: int) -> None:
    training, images = _images(n, 0, axes, side), _images(3, 1, axes, side)

    def halved(x: torch.Tensor) -> np.ndarray:
        a = x.double().numpy().reshape(len(x), *([side // 2, 2] * axes))
        return a.mean(tuple(range(2, 2 * axes + 1, 2))).reshape(len(x), -1)

    points, queries = halved(training), halved(images)
    center = points.mean(0)
    directions = np.linalg.svd(points - center, full_matrices=False)[2][: min(30, n - 1)]
    expected = []
    for query in queries:
        residual = query - center
        for direction in directions:
            residual = residual - (residual @ direction) * direction
        expected.append(np.mean(residual**2))
    np.testing.assert_allclose(pca_errors(training, images).numpy(), expected, rtol=1e-6)


def test_pca_error_of_a_training_image_is_zero_when_all_directions_are_kept() -> None:
    training = _images(6, 0)
    assert float(pca_errors(training, training).max()) < 1e-6 * float(pca_errors(training, _images(1, 1))[0])
    # repeated images span fewer directions than there are images
    assert torch.isfinite(pca_errors(training[:1].repeat(5, 1, 1), training)).all()


def test_pca_on_a_large_training_set_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomaly.data.audit.baselines._MOST_PCA_IMAGES", 20)
    training, images = _images(30, 0), _images(2, 1)
    first = pca_errors(training, images, seed=1)
    assert torch.equal(first, pca_errors(training, images, seed=1))
    assert not torch.equal(first, pca_errors(training, images, seed=2))


def test_pca_refuses_no_components() -> None:
    with pytest.raises(ValueError, match="components must be at least 1, got 0"):
        pca_errors(_images(3, 0), _images(1, 1), components=0)


def test_nearest_distances_equal_the_loop() -> None:
    training, images = _images(7, 0), _images(5, 1)
    images[4] = 3 * training[2] + 20  # brightness and contrast do not count

    def unit(x: torch.Tensor) -> torch.Tensor:
        x = x.double().flatten() - x.double().mean()
        return x / x.norm()

    expected = [min(float((unit(a) - unit(b)).norm()) for b in training) for a in images]
    np.testing.assert_allclose(nearest_distances(training, images)[:4].numpy(), expected[:4], rtol=1e-5)
    assert float(nearest_distances(training, images)[4]) < 2e-3


def test_slice_position_is_the_distance_from_the_median_of_training() -> None:
    training = _features(_images(4, 0), torch.tensor([0.1, 0.2, 0.4, 0.9], dtype=torch.float64))
    section = _features(_images(3, 1), torch.tensor([0.0, 0.3, 0.8], dtype=torch.float64))
    np.testing.assert_allclose(
        baseline_scores(training, section)["slice_position"].numpy(), [0.3, 0.0, 0.5], atol=1e-12
    )
    assert "slice_position" not in baseline_scores(training, _features(_images(3, 1)))
    assert "slice_position" not in baseline_scores(_features(_images(4, 0)), section)


def test_without_training_only_what_needs_none() -> None:
    names = {"mean_intensity", "contrast", "sharpness", "foreground_area"}
    section = _features(_images(3, 1))
    assert set(baseline_scores(None, section)) == names
    every = baseline_scores(_features(_images(4, 0)), section)
    assert set(every) == names | {"pca_reconstruction", "nearest_training_image"}
    assert torch.equal(every["mean_intensity"], section.mean) and torch.equal(every["sharpness"], section.sharpness)


def test_rank_scores_count_pairs_and_keep_the_sign() -> None:
    scores = torch.tensor([3.0, 1.0, 1.0, 2.0, 0.0], dtype=torch.float64)
    targets = torch.tensor([0, 1, 0, 1, 1])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[targets == 1] for b in scores[targets == 0]]
    ranked = rank_scores(scores, targets)
    assert ranked["image_auroc"] == pytest.approx(float(sum(pairs)) / 6)
    assert ranked["image_auroc"] < 0.5
    # descending: 3 (healthy), 2 (hit: 1/2), 1 and 1 (hit, tied: 2/4), 0 (hit: 3/5)
    assert ranked["image_ap"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert rank_scores(scores, torch.ones(5)) == {"image_auroc": None, "image_ap": None}
