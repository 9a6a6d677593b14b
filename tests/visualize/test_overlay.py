# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from monai_anomaly.visualize import colorize, mask_outline, overlay_heatmap, slice_of_largest_mass, to_gray, unit_range

DRAW = np.random.default_rng(0)


def test_unit_range_is_linear_and_clips() -> None:
    values = np.array([[-3.0, 0.0], [1.0, 9.0]])
    for low, high in ((-3.0, 9.0), (0.0, 2.0), (-1.0, 20.0)):
        expected = [[min(max((v - low) / (high - low), 0), 1) for v in row] for row in values.tolist()]
        assert np.allclose(unit_range(values, (low, high)), expected, atol=1e-7)
    assert np.array_equal(unit_range(values), unit_range(values, (-3.0, 9.0)))


def test_unit_range_of_what_is_not_finite_or_has_no_range() -> None:
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 2.0, 4.0])
    assert unit_range(values).tolist() == [0, 0, 0, 0, 1]
    assert not unit_range(np.full((2, 3), 7.0)).any()
    assert not unit_range(np.full(3, np.nan)).any()
    for bad in ((1.0, 0.0), (0.0, float("nan")), (-float("inf"), 0.0)):
        with pytest.raises(ValueError, match=r"value_range must be two finite ascending numbers, got \("):
            unit_range(values, bad)


def test_to_gray_keeps_gray_and_colors() -> None:
    gray = DRAW.uniform(-1, 1, (3, 5))
    pixels = to_gray(gray, (-1, 1))
    assert pixels.shape == (3, 5, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.rint((gray[..., None] + 1) / 2 * 255).repeat(3, -1))
    color = DRAW.uniform(0, 1, (3, 5, 3))
    assert np.array_equal(to_gray(color, (0, 1)), np.rint(color.astype(np.float32) * 255))
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, 3\), got \(3, 5, 2\)"):
        to_gray(np.zeros((3, 5, 2)))


def test_colorize_is_the_color_table() -> None:
    values = np.linspace(0, 1, 256).reshape(8, 32)
    assert np.allclose(colorize(values, (0, 1)), colormaps["inferno"](np.arange(256))[:, :3].reshape(8, 32, 3))
    assert np.allclose(colorize(np.array([5.0]), (0, 1), "magma")[0], colormaps["magma"](255)[:3])
    with pytest.raises(ValueError, match="got 'no such map'"):
        colorize(values, colormap="no such map")


def slow_outline(mask: np.ndarray) -> np.ndarray:
    """A pixel of the mask with one of its four neighbors outside it or outside the picture."""
    padded = np.pad(mask > 0.5, 1)
    border = np.zeros(mask.shape, dtype=bool)
    for y, x in itertools.product(*map(range, mask.shape)):
        neighbors = [padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2]]
        border[y, x] = padded[y + 1, x + 1] and not all(neighbors)
    return border


def test_outline_is_the_inner_border() -> None:
    mask = DRAW.random((17, 23)) > 0.35
    assert np.array_equal(mask_outline(mask), slow_outline(mask))
    square = np.zeros((12, 12))
    square[2:10, 2:10] = 1
    square[0, 0] = -1  # not annotated
    thick = mask_outline(square, thickness=2)
    assert thick.sum() == 64 - 16 and not thick[4:8, 4:8].any() and not thick[0, 0]
    with pytest.raises(ValueError, match="thickness must be at least 1, got 0"):
        mask_outline(square, 0)


def test_slice_of_largest_mass() -> None:
    volume = DRAW.random((4, 5, 6))
    volume[:, :, 2] += 1
    volume[3] += 2
    assert slice_of_largest_mass(volume) == 2
    assert slice_of_largest_mass(volume, axis=0) == 3
    assert slice_of_largest_mass(np.ones((2, 2, 3))) == 0
    volume[0, 0, 4] = np.nan
    assert slice_of_largest_mass(volume) == 2


def test_overlay_is_gray_below_and_color_above() -> None:
    image, heat = DRAW.uniform(-1, 1, (6, 9)), np.zeros((6, 9))
    heat[2, 3], heat[4, 5] = 1.0, 0.25
    result = overlay_heatmap(image, heat, value_range=(0, 1), image_range=(-1, 1), opacity=0.8)
    assert result.shape == (6, 9, 3) and result.dtype == np.uint8
    plain = to_gray(image, (-1, 1))
    untouched = heat == 0
    assert np.array_equal(result[untouched], plain[untouched])
    for (y, x), weight in (((2, 3), 0.8), ((4, 5), 0.8 * 0.5)):
        color = np.asarray(colormaps["inferno"](round(heat[y, x] * 255))[:3])
        assert np.allclose(result[y, x], 255 * weight * color + (1 - weight) * plain[y, x], atol=1.01)


def test_overlay_draws_the_outline_of_the_mask() -> None:
    mask = np.zeros((9, 9))
    mask[3:7, 2:6] = 1
    result = overlay_heatmap(np.ones((9, 9)), np.zeros((9, 9)), mask, (0, 1), (0, 1), outline_color=(1, 2, 3))
    border = slow_outline(mask)
    assert np.array_equal((result == (1, 2, 3)).all(-1), border)
    assert (result[4, 3] < 255).all(), "a dark line beside the outline"
    assert (result[0, 0] == 255).all() and (result[8, 8] == 255).all()


def test_overlay_of_a_volume_is_that_of_its_slice() -> None:
    image, heat = DRAW.random((5, 6, 7)), DRAW.random((5, 6, 7))
    heat[..., 4] += 1
    mask = heat > 1.5
    limits = (float(heat.min()), float(heat.max())), (float(image.min()), float(image.max()))
    expected = overlay_heatmap(image[..., 4], heat[..., 4], mask[..., 4], *limits)
    assert np.array_equal(overlay_heatmap(image, heat, mask), expected)


def test_overlay_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"same size, got \(\(4, 5\), \(5, 4\), None\)"):
        overlay_heatmap(np.zeros((4, 5)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="same size"):
        overlay_heatmap(np.zeros((4, 5)), np.zeros((4, 5)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"opacity must be in \[0, 1\], got 1.5"):
        overlay_heatmap(np.zeros((4, 5)), np.zeros((4, 5)), opacity=1.5)
