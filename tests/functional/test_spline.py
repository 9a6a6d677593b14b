# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from monai_anomaly.functional.boxes import crop_boxes
from monai_anomaly.functional.spline import REACH, sample_spline, spline_coefficients, spline_crop

SHAPES = [
    (1, 1),
    (1, 9),
    (2, 1),
    (2, 2),
    (3, 3),
    (3, 40),
    (17, 12),
    (1, 1, 1),
    (1, 2, 3),
    (3, 3, 3),
    (5, 4, 7),
    (2, 9, 6),
]


def sample(coefficients: Tensor, points: np.ndarray) -> Tensor:
    """Values (B, C, N) at points (B, N, D)."""
    batch, count, dims = points.shape
    grid = torch.from_numpy(points).to(coefficients).reshape(batch, count, *[1] * (dims - 1), dims)
    return sample_spline(coefficients, grid).reshape(batch, -1, count)


def case(shape: tuple[int, ...], count: int = 60, outside: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Images (2, 3, *S) and points (2, N, D), among them the voxels of the corners."""
    rng = np.random.RandomState(len(shape) + sum(shape))
    last = np.array(shape) - 1.0
    points = rng.uniform(-outside, last + outside, (2, count, len(shape)))
    points[:, 0], points[:, 1], points[:, 2] = 0, last, last // 2
    points[:, 3, 0] = last[0]
    return rng.rand(2, 3, *shape), points


def slow(images: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.stack(
        [
            [ndimage.map_coordinates(channel, place.T, order=3, mode="mirror") for channel in image]
            for image, place in zip(images, points, strict=True)
        ]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_scipy_inside_the_image(shape: tuple[int, ...]) -> None:
    images, points = case(shape)
    expected = slow(images, points)
    values = sample(spline_coefficients(torch.from_numpy(images)), points)
    np.testing.assert_allclose(values, expected, atol=1e-9)
    values = sample(spline_coefficients(torch.from_numpy(images).float()), points)
    np.testing.assert_allclose(values, expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 5), (7, 9), (4, 5, 6)])
def test_points_outside_take_the_value_of_the_nearest_border(shape: tuple[int, ...]) -> None:
    images, points = case(shape, outside=5)
    expected = slow(images, np.clip(points, 0, np.array(shape) - 1))
    values = sample(spline_coefficients(torch.from_numpy(images)), points)
    np.testing.assert_allclose(values, expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 11), (5, 4, 7)])
def test_coefficients_equal_scipy(shape: tuple[int, ...]) -> None:
    images, _ = case(shape)
    coefficients = spline_coefficients(torch.from_numpy(images))
    for image, found in zip(images.reshape(-1, *shape), coefficients.reshape(-1, *shape), strict=True):
        np.testing.assert_allclose(found, ndimage.spline_filter(image, 3, mode="mirror"), atol=1e-9)


@pytest.mark.parametrize("shape", [(9, 8), (4, 5, 6)])
def test_voxels_keep_their_values(shape: tuple[int, ...]) -> None:
    images, _ = case(shape)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)
    values = sample_spline(spline_coefficients(torch.from_numpy(images)), torch.from_numpy(np.stack([grid, grid])))
    assert values.shape == images.shape
    np.testing.assert_allclose(values, images, atol=1e-10)


def test_a_cubic_polynomial_is_reproduced_away_from_the_border() -> None:
    def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 1e-4 * (x**3 - 2 * x * y**2) + 0.01 * y**2 - 0.3 * x

    grid = np.meshgrid(np.arange(60.0), np.arange(70.0), indexing="ij")
    image = torch.from_numpy(polynomial(*grid))[None, None]
    points = np.random.RandomState(0).uniform(25, 35, (1, 50, 2))
    values = sample(spline_coefficients(image), points)
    np.testing.assert_allclose(values[0, 0], polynomial(*points[0].T), atol=1e-9)


def test_images_of_a_batch_are_sampled_one_by_one() -> None:
    images, points = case((9, 8))
    coefficients = spline_coefficients(torch.from_numpy(images))
    together = sample(coefficients, points)
    for row in range(2):
        alone = sample(coefficients[row : row + 1], points[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-12)


def test_a_crop_with_its_margin_gives_the_spline_of_the_whole_image() -> None:
    image = torch.from_numpy(np.random.RandomState(0).rand(1, 1, 90, 80))
    points = np.random.RandomState(1).uniform(0, (9, 12), (1, 200, 2))
    corner = np.array([[30, 41]])
    size = spline_crop((10, 13))
    assert all(whole >= part + 2 * REACH for whole, part in zip(size, (10, 13), strict=True))
    crop = crop_boxes(image, [0], corner - REACH, size)
    values = sample(spline_coefficients(crop), points + REACH)
    np.testing.assert_allclose(values, slow(image.numpy(), points + corner), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4), (5, 6), (3, 4, 3)])
def test_gradients_are_right_and_finite(shape: tuple[int, ...]) -> None:
    images, points = case(shape, count=6)
    image = torch.from_numpy(images[:, :1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sample(spline_coefficients(x), points), (image,))
    # in the interior of a cell the value is smooth in the place, too
    inner = np.floor(points.clip(0, np.maximum(np.array(shape) - 2, 0))) + 0.3
    place = torch.from_numpy(inner).reshape(2, 6, *[1] * (len(shape) - 1), len(shape)).requires_grad_()
    coefficients = spline_coefficients(torch.from_numpy(images))
    if 1 not in shape:
        assert torch.autograd.gradcheck(lambda x: sample_spline(coefficients, x), (place,))
    at_voxels = torch.from_numpy(points).reshape(2, 6, *[1] * (len(shape) - 1), len(shape)).requires_grad_()
    sample_spline(coefficients, at_voxels).sum().backward()
    assert bool(torch.isfinite(at_voxels.grad).all())
