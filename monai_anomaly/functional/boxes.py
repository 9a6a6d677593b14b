# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Boxes in a batch of images: where they are is known on the CPU, what they hold may be on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def crop_boxes(images: Tensor, rows: Sequence[int], corners: np.ndarray, size: Sequence[int]) -> Tensor:
    """Cut boxes of a common size out of images; beyond its border an image is mirrored, the border itself once.

    Args:
        images: (B, C, *S).
        rows: image that each box is cut from, N numbers.
        corners: lower corner of each box in voxels (N, D), integers; may lie outside.
        size: size of the boxes in voxels (D numbers).

    Returns:
        boxes (N, C, *size).
    """
    index = linear_index(corners, size, images.shape[2:], images.device)
    flat = images.flatten(2)
    if len(rows) == 1:
        values = flat[rows[0] : rows[0] + 1].index_select(2, index[0])
    else:
        values = flat[torch.tensor(rows, device=images.device)].gather(2, index[:, None].expand(-1, flat.shape[1], -1))
    return values.reshape(len(rows), images.shape[1], *size)


def linear_index(corners: np.ndarray, size: Sequence[int], shape: Sequence[int], device: torch.device) -> Tensor:
    """Return for each voxel of each box its place in the flattened image, (N, prod size), mirrored at the border."""
    index = np.zeros((1, *[1] * len(size)), dtype=np.int64)
    for axis, (length, whole) in enumerate(zip(size, shape, strict=True)):
        along = np.arange(length) + corners[:, axis : axis + 1]
        if along.min() < 0 or along.max() >= whole:
            period = max(2 * whole - 2, 1)
            along = along % period
            along = np.minimum(along, period - along) if whole > 1 else np.zeros_like(along)
        index = index * whole + along_axis(along, axis, len(size))
    return torch.from_numpy(index.reshape(len(corners), -1)).to(device)


def inside_boxes(sizes: np.ndarray, size: Sequence[int], device: torch.device, border: int = 0) -> Tensor:
    """Mark what is no padding in boxes padded to a common size, (N, 1, *size), bool.

    Args:
        sizes: true size of each box (N, D).
        size: common size (D numbers).
        device: where the result goes.
        border: voxels at the border of the true box to leave out, default 0.
    """
    inside = np.ones((1, *[1] * len(size)), dtype=bool)
    for axis, length in enumerate(size):
        index = np.arange(length)
        along = (index >= border) & (index < sizes[:, axis : axis + 1] - border)
        inside = inside & along_axis(along, axis, len(size))
    return torch.from_numpy(inside[:, None]).to(device)


def along_axis(values: np.ndarray, axis: int, dims: int) -> np.ndarray:
    """Give values along one axis of N boxes (N, length) the shape (N, 1, ..., length, ..., 1)."""
    shape = [len(values), *[1] * dims]
    shape[axis + 1] = values.shape[1]
    return values.reshape(shape)


def box_points(size: Sequence[int], like: Tensor) -> Tensor:
    """Coordinates of all voxels of a box, (*size, D), in the dtype and on the device of ``like``."""
    axes = [torch.arange(length, dtype=like.dtype, device=like.device) for length in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
