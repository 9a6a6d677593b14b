# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Cubic spline interpolation at arbitrary points, for whole batches and on any device.

Equal to ``scipy.ndimage.map_coordinates(order=3, mode="mirror")`` at points inside the image; points outside take the
value of the nearest border.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

REACH = 12
"""Voxels beyond which a coefficient no longer matters: the influence falls by 0.268 from one to the next."""

_MOST_TAPS = 2**20
# cubic B-spline pieces of the four coefficients around a point, by powers of its fractional part
_PIECES = [[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]


def spline_coefficients(images: Tensor) -> Tensor:
    """Coefficients of the interpolating cubic spline, (B, C, *S) as the images.

    The tridiagonal system of each axis is solved by a product with its inverse, made once for every length.
    """
    for axis in range(2, images.ndim):
        inverse = _inverse(images.shape[axis], images.dtype, images.device)
        images = (images.movedim(axis, -1) @ inverse.T).movedim(-1, axis)
    return images


def sample_spline(coefficients: Tensor, sample: Tensor, points: Tensor) -> Tensor:
    """Values of splines at points.

    Args:
        coefficients: (B, C, *S) from :func:`spline_coefficients`.
        sample: number of the image that each point belongs to (N,), integers.
        points: coordinates in voxels (N, D).

    Returns:
        values (N, C).
    """
    shape = coefficients.shape[2:]
    flat = coefficients.flatten(2)
    last = torch.tensor(shape, device=points.device) - 1
    points = points.clamp(torch.zeros_like(last), last)
    count = max(_MOST_TAPS // (4 ** len(shape) * coefficients.shape[1]), 1)
    parts = [
        _values(flat, *part, last, shape) for part in zip(sample.split(count), points.split(count), strict=True)
    ]
    return torch.cat(parts) if parts else flat.new_zeros((0, flat.shape[1]))


def _values(flat: Tensor, sample: Tensor, points: Tensor, last: Tensor, shape: torch.Size) -> Tensor:
    base = points.floor()
    part = points - base
    powers = torch.stack([torch.ones_like(part), part, part * part, part * part * part], dim=-1)
    weight = powers @ (points.new_tensor(_PIECES) / 6)  # (N, D, 4)
    index = (base.long()[..., None] + torch.arange(-1, 3, device=points.device)).abs()
    index = (last[:, None] - (last[:, None] - index).abs()).clamp(min=0)  # mirrored at both borders
    place, share = index[:, 0], weight[:, 0]
    for axis in range(1, len(shape)):
        place = (place[:, :, None] * shape[axis] + index[:, axis, None]).flatten(1)
        share = (share[:, :, None] * weight[:, axis, None]).flatten(1)
    return (flat[sample[:, None], :, place] * share[..., None]).sum(1)


@lru_cache(maxsize=64)
def _inverse(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = np.zeros((length, length))
    for row in range(length):
        for offset, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
            column = abs(row + offset)
            column = max(2 * (length - 1) - column if column > length - 1 else column, 0)
            matrix[row, column] += weight
    inverse = np.linalg.inv(matrix)
    inverse[np.abs(inverse) < 1e-24] = 0  # it decays with the distance; numbers too small for float32 cost time
    return torch.from_numpy(inverse).to(device, dtype)
