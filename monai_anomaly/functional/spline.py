# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Cubic spline interpolation at arbitrary points, for whole batches and on any device.

Equal to ``scipy.ndimage.map_coordinates(order=3, mode="mirror")`` at points inside the image; points outside take the
value of the nearest border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 12
"""Voxels beyond which a coefficient no longer matters: the influence falls by 0.268 from one to the next."""


def spline_crop(size: Sequence[int]) -> tuple[int, ...]:
    """Size that a crop should have to hold ``size`` voxels and a margin of :data:`REACH` on all sides.

    Rounded up: the inverses of few lengths are kept, and what lies beyond the margin changes nothing.
    """
    return tuple(-(-(length + 2 * REACH) // 8) * 8 for length in size)


def spline_coefficients(images: Tensor) -> Tensor:
    """Coefficients of the interpolating cubic spline, (B, C, *S) as the images.

    The tridiagonal system of each axis is solved by a product with its inverse, made once for every length.
    """
    for axis in range(2, images.ndim):
        inverse = _inverse(images.shape[axis], images.dtype, images.device)
        if axis == images.ndim - 1:
            images = torch.mm(images.reshape(-1, len(inverse)), inverse.T).reshape(images.shape)
        else:
            flat = images.reshape(-1, len(inverse), math.prod(images.shape[axis + 1 :]))
            images = torch.matmul(inverse, flat).reshape(images.shape)
    return images


def sample_spline(coefficients: Tensor, points: Tensor) -> Tensor:
    """Values of splines at points.

    The weights of a cubic B-spline are positive, so that each pair of its four taps along an axis is one linear
    interpolation between the two: 2^D of these, which ``grid_sample`` does, replace 4^D taps.

    Args:
        coefficients: (B, C, *S) from :func:`spline_coefficients`, 2D or 3D.
        points: coordinates in voxels (B, *P, D), P of any number of dimensions.

    Returns:
        values (B, C, *P).
    """
    shape, dims = points.shape[1:-1], points.shape[-1]
    points = points.flatten(1, -2)
    last = torch.tensor(coefficients.shape[2:], device=points.device, dtype=points.dtype) - 1
    points = torch.minimum(points.clamp(min=0), last)
    base = points.floor()
    f = points - base
    f2 = f * f
    f3 = f2 * f
    first = (5 - 3 * (f + f2) + 2 * f3) / 6  # weight of the first two taps
    second = 1 - first
    # where between the taps of a pair to interpolate, in the coordinates of grid_sample: from -1 to 1, and x first
    pairs = torch.stack([base - 1 + (4 - 6 * f2 + 3 * f3) / (6 * first), base + 1 + f3 / (6 * second)], dim=1)
    place = _combinations((pairs * (2 / last.clamp(min=1)) - 1).unbind(-1)[::-1])
    share = _combinations(torch.stack([first, second], dim=1).unbind(-1)[::-1])
    grid = torch.stack(place, dim=-1).reshape(len(points), -1, *[1] * (dims - 1), dims)
    values = F.grid_sample(coefficients, grid, padding_mode="reflection", align_corners=True)
    values = values.reshape(*coefficients.shape[:2], 2**dims, -1) * math.prod(share[1:], start=share[0]).reshape(
        len(points), 1, 2**dims, -1
    )
    return values.sum(2).unflatten(2, shape)


def sample_in_range(coefficients: Tensor, points: Tensor, images: Tensor) -> Tensor:
    """Values of splines, which overshoot, clipped to the range of each channel of the images (B, C, *S)."""
    values = sample_spline(coefficients, points)
    low, high = torch.aminmax(images.flatten(2), dim=2)
    shape = (*low.shape, *[1] * (values.ndim - 2))
    return torch.minimum(torch.maximum(values, low.reshape(shape)), high.reshape(shape))


def _combinations(choices: Sequence[Tensor]) -> list[Tensor]:
    """All combinations of one of two choices an axis (B, 2, M), each axis expanded to (B, 2, ..., 2, M)."""
    result = []
    for axis, choice in enumerate(choices):
        shape = [len(choice), *[1] * len(choices), choice.shape[-1]]
        shape[axis + 1] = 2
        result.append(choice.reshape(shape).expand(-1, *[2] * len(choices), -1))
    return result


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
