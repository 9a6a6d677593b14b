# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from monai_anomaly.functional.jitter import NAMES, draw_jitter, jitter_color


def factors(*values: float, count: int = 1) -> list[torch.Tensor]:
    return [torch.full((count,), value) for value in values]


def rgb_boxes(count: int = 2, size: tuple[int, int] = (5, 4)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def slow_jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """One RGB image (3, H, W) in [0, 1], pixel by pixel, with the standard library's conversion of colors."""
    luma = np.array([0.299, 0.587, 0.114])
    x = np.clip(image * brightness, 0, 1)
    mean = (luma @ x.reshape(3, -1)).mean()
    x = np.clip(mean + contrast * (x - mean), 0, 1)
    out = np.empty_like(x)
    for place in np.ndindex(x.shape[1:]):
        pixel = x[(slice(None), *place)]
        gray = luma @ pixel
        pixel = np.clip(gray + saturation * (pixel - gray), 0, 1)
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        out[(slice(None), *place)] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    return out


@pytest.mark.parametrize(
    "values", [(1.1, 0.9, 1.05, 0.07), (0.9, 1.1, 0.9, -0.1), (1.5, 1.5, 1.5, 0.5), (1, 1, 1, 0.1)]
)
def test_rgb_agrees_with_the_slow_formula(values: tuple[float, ...]) -> None:
    boxes = rgb_boxes()
    boxes[0, :, 0, 0] = 0.4  # a gray pixel has no hue
    result = jitter_color(boxes, *factors(*values, count=2))
    for before, after in zip(boxes.numpy().astype(float), result.numpy(), strict=True):
        np.testing.assert_allclose(after, slow_jitter(before, *values), atol=2e-6)


def test_each_box_has_its_own_factors() -> None:
    boxes = rgb_boxes(3)
    given = [torch.tensor(v) for v in ([1.1, 0.9, 1.0], [0.9, 1.0, 1.1], [1.0, 0.95, 1.1], [0.05, 0.0, -0.1])]
    together = jitter_color(boxes, *given)
    for row in range(3):
        alone = jitter_color(boxes[row : row + 1], *[value[row : row + 1] for value in given])
        assert torch.equal(together[row : row + 1], alone)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_neutral_factors_change_no_bit(channels: int) -> None:
    boxes = torch.rand(2, channels, 6, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(jitter_color(boxes, *factors(1, 1, 1, 0, count=2)), boxes)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_saturation_and_hue_leave_other_than_rgb_alone(channels: int) -> None:
    boxes = torch.rand(2, channels, 6, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(jitter_color(boxes, *factors(1, 1, 0.3, 0.4, count=2)), boxes)


def test_gray_brightness_and_contrast_by_hand() -> None:
    boxes = torch.tensor([[[[0.2, 0.4], [0.6, 0.8]]]])
    assert torch.allclose(jitter_color(boxes, *factors(1.1, 1, 1, 0)), boxes * 1.1)
    assert torch.allclose(jitter_color(boxes, *factors(1, 0.5, 1, 0)), 0.5 + 0.5 * (boxes - 0.5))
    assert jitter_color(boxes, *factors(2, 1, 1, 0)).max() == 1


def test_volumes() -> None:
    boxes = torch.rand(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * 0.5
    expected = boxes.mean((2, 3, 4), keepdim=True) * -0.2 + boxes * 1.2
    assert torch.allclose(jitter_color(boxes, *factors(1, 1.2, 1, 0, count=2)), expected.clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_value_range_only_relabels_intensities(channels: int) -> None:
    boxes = torch.rand(2, channels, 6, 5, generator=torch.Generator().manual_seed(2))
    given = factors(1.1, 0.8, 1.3, 0.1, count=2)
    shifted = jitter_color(boxes * 3 - 2, *given, low=-2, high=1)
    assert torch.allclose(shifted, jitter_color(boxes, *given) * 3 - 2, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_padding_does_not_reach_the_mean(channels: int) -> None:
    boxes = torch.rand(1, channels, 4, 3, generator=torch.Generator().manual_seed(3))
    padded = torch.nn.functional.pad(boxes, (0, 4, 0, 2), value=0.9)
    valid = torch.zeros(1, 1, 6, 7, dtype=torch.bool)
    valid[..., :4, :3] = True
    given = factors(1.1, 0.8, 1.1, 0.05)
    assert torch.equal(jitter_color(padded, *given, valid=valid)[..., :4, :3], jitter_color(boxes, *given))


def test_black_and_constant_boxes_stay_finite() -> None:
    for value in (0.0, 0.5, 1.0):
        result = jitter_color(torch.full((1, 3, 2, 2), value), *factors(0.9, 1.1, 1.1, 0.1))
        assert torch.allclose(result, torch.full((1, 3, 2, 2), 0.9 * value), atol=1e-6)


def test_drawn_factors_lie_in_their_ranges_and_fill_them() -> None:
    rng = np.random.RandomState(0)
    drawn = [draw_jitter(rng, 0.1) for _ in range(500)]
    for name in NAMES:
        offsets = np.array([d[name] for d in drawn]) - (name != "hue")
        assert -0.1 <= offsets.min() < -0.095 and 0.095 < offsets.max() <= 0.1
        assert abs(offsets.mean()) < 0.01
    assert draw_jitter(np.random.RandomState(5), 0.1) == draw_jitter(np.random.RandomState(5), 0.1)
    assert draw_jitter(rng, 0.0) == {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"strength must be in \[0, 0.5\], got 0.6"):
        draw_jitter(np.random.RandomState(0), 0.6)
    with pytest.raises(ValueError, match="low must be below high, got 1.0 and 1.0"):
        jitter_color(rgb_boxes(), *factors(1, 1, 1, 0, count=2), low=1.0, high=1.0)
