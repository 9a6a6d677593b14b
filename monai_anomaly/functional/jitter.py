# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Color jitter of pasted patches: brightness, contrast, saturation and hue, in this order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
NAMES = ("brightness", "contrast", "saturation", "hue")


def draw_jitter(rng: np.random.RandomState, strength: float) -> dict[str, float]:
    """Draw the factors of :func:`jitter_color`.

    Args:
        rng: where the numbers come from; always four of them.
        strength: s in [0, 0.5]; CutPaste and AnatPaste have 0.1. 0 changes nothing.

    Returns:
        ``brightness``, ``contrast``, ``saturation``, each U(1 - s, 1 + s), and ``hue``, U(-s, s) of a full turn.

    Raises:
        ValueError: when the strength is out of range.
    """
    if not 0 <= strength <= 0.5:
        raise ValueError(f"strength must be in [0, 0.5], got {strength!r}")
    offsets = rng.uniform(-strength, strength, len(NAMES))
    return {name: float(x + (name != "hue")) for name, x in zip(NAMES, offsets, strict=True)}


def jitter_color(
    boxes: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    low: float = 0.0,
    high: float = 1.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of a batch of boxes; a box with factors 1, 1, 1, 0 stays.

    In this order, each clipped to [low, high]: ``low + b (x - low)``; ``m + c (x - m)`` with the mean m of the box (of
    its luma for RGB, else of each channel); ``y + s (x - y)`` with the luma y of each pixel; hue turned by h. The last
    two are defined for RGB; boxes with C != 3 are left alone by them.

    Args:
        boxes: (N, C, *P), float, values in [low, high].
        brightness: factor of each box (N,), >= 0.
        contrast: factor of each box (N,), >= 0.
        saturation: factor of each box (N,), >= 0.
        hue: fraction of a full turn of each box (N,).
        low: smallest possible intensity, default 0.
        high: largest possible intensity, default 1.
        valid: what is no padding (N, 1, *P), bool, for the mean that the contrast needs; None (default): all.

    Returns:
        boxes (N, C, *P) in [low, high]; the padding holds anything.

    Raises:
        ValueError: when low is not below high.
    """
    if not low < high:
        raise ValueError(f"low must be below high, got {low!r} and {high!r}")
    factors = [
        value.to(boxes).reshape(-1, *[1] * (boxes.ndim - 1)) for value in (brightness, contrast, saturation, hue)
    ]
    is_rgb = boxes.shape[1] == len(LUMA)
    result = _scaled_about(boxes, low, factors[0], low, high)
    center = _mean(_luma(result) if is_rgb else result, valid)
    result = _scaled_about(result, center, factors[1], low, high)
    if not is_rgb:
        return result
    result = _scaled_about(result, _luma(result), factors[2], low, high)
    turned = low + (high - low) * _turn_hue((result - low) / (high - low), factors[3])
    return torch.where(factors[3] == 0, result, turned.clamp(low, high))


def _scaled_about(values: Tensor, center: Tensor | float, factor: Tensor, low: float, high: float) -> Tensor:
    """Scale distances from a center, without rounding where the factor is 1."""
    return torch.where(factor == 1, values, (center + factor * (values - center)).clamp(low, high))


def _luma(boxes: Tensor) -> Tensor:
    return (boxes * boxes.new_tensor(LUMA).reshape(1, -1, *[1] * (boxes.ndim - 2))).sum(1, keepdim=True)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of each channel over the valid voxels, (N, C, 1...); in float64 so that padding changes no digit."""
    axes = list(range(2, values.ndim))
    inside = torch.ones_like(values[:, :1], dtype=torch.bool) if valid is None else valid
    total = torch.where(inside, values, 0).sum(axes, keepdim=True, dtype=torch.float64)
    return (total / inside.sum(axes, keepdim=True).clamp(min=1)).to(values.dtype)


def _turn_hue(rgb: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of RGB values in [0, 1] (N, 3, *P) and keep HSV's saturation and value."""
    value, least = rgb.amax(1, keepdim=True), rgb.amin(1, keepdim=True)
    chroma = value - least
    red, green, blue = rgb.unbind(1)
    safe = chroma[:, 0].clamp(min=torch.finfo(rgb.dtype).tiny)
    sextant = torch.where(
        red == value[:, 0],
        (green - blue) / safe,
        torch.where(green == value[:, 0], 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    offsets = rgb.new_tensor([5.0, 3.0, 1.0]).reshape(1, -1, *[1] * (rgb.ndim - 2))
    place = (sextant[:, None] + 6 * turn + offsets).remainder(6)
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)
