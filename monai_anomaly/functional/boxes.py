# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def crop_boxes(images: Tensor, rows: Tensor, corners: Tensor, size: Sequence[int]) -> Tensor:
    """Cut boxes of a common size out of images; beyond its border an image is mirrored, the border itself once.

    Args:
        images: (B, C, *S).
        rows: image that each box is cut from (N,), integers.
        corners: lower corner of each box in voxels (N, D), integers; may lie outside.
        size: size of the boxes in voxels (D numbers).

    Returns:
        boxes (N, C, *size).
    """
    values = images.flatten(2)[rows[:, None], :, linear_index(corners, size, images.shape[2:])]
    return values.movedim(2, 1).reshape(len(rows), images.shape[1], *size)


def linear_index(corners: Tensor, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return for each voxel of each box its place in the flattened image, (N, prod size), mirrored at the border."""
    dims = len(size)
    index = torch.zeros((1, *[1] * dims), dtype=torch.long, device=corners.device)
    for axis, (length, whole) in enumerate(zip(size, shape, strict=True)):
        along = torch.arange(length, device=corners.device) + corners[:, axis : axis + 1]
        if whole > 1:
            along = along.remainder(2 * whole - 2)
            along = torch.minimum(along, 2 * whole - 2 - along)
        else:
            along = torch.zeros_like(along)
        index = index * whole + along.reshape(len(corners), *[-1 if a == axis else 1 for a in range(dims)])
    return index.flatten(1)


def inside_boxes(sizes: Tensor, size: Sequence[int], border: int = 0) -> Tensor:
    """Mark what is no padding in boxes padded to a common size, (N, 1, *size), bool.

    Args:
        sizes: true size of each box (N, D).
        size: common size (D numbers).
        border: voxels at the border of the true box to leave out, default 0.
    """
    inside = torch.ones((1, 1, *[1] * len(size)), dtype=torch.bool, device=sizes.device)
    for axis, length in enumerate(size):
        index = torch.arange(length, device=sizes.device)
        along = (index >= border) & (index < sizes[:, axis : axis + 1] - border)
        inside = inside & along.reshape(-1, 1, *[length if a == axis else 1 for a in range(len(size))])
    return inside
