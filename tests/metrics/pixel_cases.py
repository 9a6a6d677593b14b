# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps with the distributions that streaming must cope with."""

from __future__ import annotations

from collections.abc import Callable

import torch


def _masked_background(maps: torch.Tensor) -> torch.Tensor:
    maps = maps.clone()
    maps[..., :6, :] = 0.0
    return maps


SHAPES_OF_SCORES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "normal": lambda maps: maps,
    "tiny": lambda maps: maps.square() * 1e-9,
    "heavy tail": lambda maps: torch.exp(4.0 * maps),
    "negative": lambda maps: -torch.exp(-maps),
    "narrow": lambda maps: 1000.0 + 0.1 * maps,
    "ties": lambda maps: (2.0 * maps).round() / 2.0,
    "8 bit": lambda maps: ((maps + 5.0) * 25.0).round().clamp(0, 255),
    "masked background": _masked_background,
    "constant": lambda maps: torch.full_like(maps, 0.3),
    "two values": lambda maps: (maps > 1.0).float(),
}


def pixel_case(name: str, images: int = 12, size: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, 1, H, W) maps and masks, the last image of which is not annotated."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(images, 1, size, size)
    for image in range(0, images, 2):
        y, x, h, w = torch.randint(2, size // 2, (4,), generator=generator).tolist()
        masks[image, :, y : y + h, x : x + w] = 1.0
        masks[image, :, 0, 0] = 1.0
    maps = SHAPES_OF_SCORES[name](torch.randn(images, 1, size, size, generator=generator) + 1.2 * masks)
    masks[-1] = -1.0
    return maps, masks
