# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def local_mean(features: Tensor, neighborhood: int) -> Tensor:
    """Mean of each place and those around it, at the border of those that there are.

    Args:
        features: (B, C, *S) with one, two or three spatial axes.
        neighborhood: places along each axis, an odd number; 1: nothing is done.

    Returns:
        (B, C, *S).

    Raises:
        ValueError: when ``neighborhood`` is even or below 1.

    Example:
        >>> local_mean(torch.tensor([[[0.0, 2.0, 4.0, 12.0]]]), 3)
        tensor([[[1., 2., 6., 8.]]])
    """
    if neighborhood < 1 or neighborhood % 2 == 0:
        raise ValueError(f"neighborhood must be an odd number of places, at least 1, got {neighborhood}.")
    if neighborhood == 1:
        return features
    axes = features.ndim - 2
    pad, average = [neighborhood // 2] * 2 * axes, _AVERAGE[axes]
    # padded first: pooling with padding of its own refuses volumes that are smaller than the neighborhood
    share = average(F.pad(torch.ones_like(features[:1, :1]), pad), neighborhood, 1)
    return average(F.pad(features, pad), neighborhood, 1) / share


def to_grid(maps: Sequence[Tensor], size: Sequence[int], unit_length: bool = False, neighborhood: int = 1) -> Tensor:
    """Bring feature maps of several layers to one grid and join their channels.

    Along an axis where a map is larger than the grid it is averaged over the area of each cell (adaptive pooling);
    along one where it is smaller it is interpolated linearly between the centers of cells (``align_corners=False``).
    A map that has the size of the grid already is taken as it is.

    Before that, each map is averaged over ``neighborhood`` of its own places along each axis, so that a vector knows
    what is around it (Roth et al. 2022, Eq. 2).

    With ``unit_length`` each layer has the same say, whatever the size of its numbers: the vector of each layer is
    scaled to length 1 at each place, after the resampling, and the joined one by 1/sqrt(number of maps), so that it has
    length 1 too, and the cosine similarity of two joined vectors is the mean of the layers' own. Zeros stay zeros.

    Args:
        maps: feature maps (B, C_i, *S_i) with one, two or three spatial axes, of the same images.
        size: cells of the grid along each spatial axis, *G.
        unit_length: whether the vectors are scaled to length 1, layer by layer.
        neighborhood: places of each map that it is averaged over first, an odd number (:func:`local_mean`); 3 in
            PatchCore; 1 (default): none.

    Returns:
        (B, sum of C_i, *G).

    Raises:
        ValueError: when there is no map, or when maps and size differ in their number of axes or images, or
            ``neighborhood`` is no odd number.

    Example:
        >>> shallow, deep = torch.rand(2, 8, 64, 64), torch.rand(2, 16, 16, 16)
        >>> grid = to_grid([shallow, deep], size=(32, 32), unit_length=True)
        >>> grid.shape, bool(torch.allclose(grid.norm(dim=1), torch.ones(2, 32, 32)))
        (torch.Size([2, 24, 32, 32]), True)
    """
    size = check_maps(maps, size)
    resampled = [resample(local_mean(found, neighborhood), size) for found in maps]
    if unit_length:
        resampled = [F.normalize(found, dim=1) / len(maps) ** 0.5 for found in resampled]
    return torch.cat(resampled, dim=1)


def check_maps(maps: Sequence[Tensor], size: Sequence[int]) -> tuple[int, ...]:
    """The size of a grid, where maps can be brought to it; else a ``ValueError``, as of :func:`to_grid`."""
    size = tuple(size)
    if not maps:
        raise ValueError("maps must hold at least one feature map, got none.")
    if len(size) not in _LINEAR or any(cells < 1 for cells in size):
        raise ValueError(f"size must be one, two or three positive numbers of cells, got {size}.")
    for found in maps:
        if found.ndim != len(size) + 2 or found.shape[0] != maps[0].shape[0]:
            raise ValueError(
                f"every map must be ({maps[0].shape[0]}, C, *S) with the {len(size)} spatial axes of size {size}, "
                f"got shape {tuple(found.shape)}."
            )
    return size


def resample(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """Average where the map (B, C, *S) is finer than the grid, interpolate where it is coarser."""
    pooled = [min(cells, wanted) for cells, wanted in zip(features.shape[2:], size, strict=True)]
    if pooled != list(features.shape[2:]):
        features = F.interpolate(features, size=pooled, mode="area")
    if pooled != list(size):
        features = F.interpolate(features, size=list(size), mode=_LINEAR[len(size)], align_corners=False)
    return features
