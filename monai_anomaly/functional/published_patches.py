# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_grid import check_maps, resample


def published_patches(
    maps: Sequence[Tensor], size: Sequence[int], neighborhood: int = 3, channels: int = 1024
) -> Tensor:
    """Join feature maps as the published code of PatchCore does, which is not what its paper says.

    The neighborhood of each place, zeros beyond the border, is laid out as one vector of ``C_i * neighborhood^n``
    numbers, channel by channel, and this is averaged to ``channels`` numbers (adaptive pooling), whatever is beside one
    another in it: with C_i = ``channels`` the mean of each channel, with half as many that of half of the neighbors.
    The vectors of the layers are brought to the grid and joined, and the joined one is averaged to ``channels`` again.

    Args:
        maps: feature maps (B, C_i, *S_i) with one, two or three spatial axes, of the same images.
        size: places of the grid along each axis, *G; the published code has the size of the first map.
        neighborhood: places along each axis, an odd number; 3 in the paper.
        channels: numbers of a vector, 1024 in the published code.

    Returns:
        (B, channels, *G).

    Raises:
        ValueError: as of :func:`monai_anomaly.functional.to_grid`.

    Reference:
        K. Roth, L. Pemula, J. Zepeda, B. Schölkopf, T. Brox, P. Gehler: "Towards Total Recall in Industrial Anomaly
        Detection", CVPR 2022, Section 3.1, and the authors' code.

    Example:
        >>> maps = [torch.rand(1, 512, 4, 4), torch.rand(1, 1024, 2, 2)]
        >>> published_patches(maps, (4, 4)).shape
        torch.Size([1, 1024, 4, 4])
    """
    size = check_maps(maps, size)
    if neighborhood < 1 or neighborhood % 2 == 0:
        raise ValueError(f"neighborhood must be an odd number of places, at least 1, got {neighborhood}.")
    pooled = [resample(_pooled(_neighborhoods(found, neighborhood), channels), size) for found in maps]
    return _pooled(torch.cat(pooled, dim=1), channels)


def _neighborhoods(features: Tensor, neighborhood: int) -> Tensor:
    """Each place's own and neighboring values (B, C * neighborhood^n, *S), the neighbors of a channel in a row."""
    axes = features.ndim - 2
    windows = F.pad(features, [neighborhood // 2] * 2 * axes)
    for axis in range(axes):
        windows = windows.unfold(2 + axis, neighborhood, 1)  # (B, C, *S, p, ...)
    return windows.movedim(list(range(-axes, 0)), list(range(2, 2 + axes))).flatten(1, 1 + axes)


def _pooled(features: Tensor, channels: int) -> Tensor:
    """Average the numbers of each place (B, K, *S) to (B, channels, *S)."""
    rows = F.adaptive_avg_pool1d(features.flatten(2).transpose(1, 2), channels)
    return rows.transpose(1, 2).unflatten(2, features.shape[2:])
