# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Random boxes and ellipsoids, sheared and rotated, on a voxel grid.

Reference:
    M. Baugh et al.: "Many Tasks Make Light Work: Learning to Localise Medical Anomalies from Multiple Synthetic Tasks",
    MICCAI 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

KINDS = ("box", "ellipsoid")


class DeformedShape(NamedTuple):
    """A convex shape on the voxel grid of its bounding box.

    The voxel with index i of the box lies at ``i + low`` from the center of the shape; with ``u = matrix^-1 (i + low)``
    it is inside a box if ``|u_d| <= half_d`` for all d, inside an ellipsoid if ``sum (u_d / half_d)^2 <= 1``.
    """

    mask: np.ndarray
    """(*P), bool."""
    kind: str
    """"box" or "ellipsoid"."""
    matrix: np.ndarray
    """(D, D), from the aligned shape to voxels."""
    half: np.ndarray
    """half of the aligned shape's size along each axis, (D,)."""
    low: np.ndarray
    """position of the bounding box's first voxel relative to the center of the shape, (D,)."""
    inverse: np.ndarray
    """inverse of the matrix (D, D)."""


def random_size(
    rng: np.random.RandomState,
    extent: np.ndarray | Sequence[float],
    bounds: Sequence[np.ndarray | Sequence[float]],
    gamma: tuple[float, float, float] = (2.0, 0.1, 0.03),
) -> np.ndarray:
    """Draw the size of a shape along each axis: ``clip((offset + Gamma(shape, scale)) * extent, low, high)``.

    Args:
        rng: where the numbers come from.
        extent: what a fraction of 1 means along each axis, in voxels (D numbers).
        bounds: smallest and largest size along each axis, in voxels (2, D).
        gamma: shape, scale and offset of the distribution; default of the paper (2, 0.1, 0.03).

    Returns:
        sizes in voxels, whole numbers >= 1, at least one of them >= 2 (D,).
    """
    shape, scale, offset = gamma
    size = (offset + rng.gamma(shape, scale, len(extent))) * np.asarray(extent, dtype=float)
    whole = np.maximum(np.clip(size, *np.asarray(bounds, dtype=float)).astype(int), 1)
    if whole.max() < 2:
        whole[np.argmax(size)] = 2
    return whole


def deform_shape(
    rng: np.random.RandomState,
    size: np.ndarray,
    largest: Sequence[int],
    kind: str = "either",
    shear_std: float = 0.2,
    max_angle: float = np.pi / 2,
    spacing: Sequence[float] | None = None,
) -> DeformedShape:
    """Shear and rotate a box or an ellipsoid.

    Args:
        rng: where the numbers come from.
        size: size of the aligned shape in voxels (D,), >= 1.
        largest: what the bounding box may measure along each axis, in voxels; a larger shape is scaled down.
        kind: "box", "ellipsoid" or "either", each with probability one half (default).
        shear_std: standard deviation of the shear coefficients, one an axis; default of the paper 0.2.
        max_angle: rotations are uniform in +- max_angle, in radians, in the plane of every pair of axes; default pi/2.
        spacing: size of a voxel along each axis; a rotation is one of the body, not of the voxel grid. Default: cubes.

    Returns:
        the shape; its mask may be empty where the shape is smaller than a voxel.
    """
    if kind == "either":
        kind = KINDS[rng.randint(2)]
    matrix = shear_and_rotate(rng, len(size), shear_std, max_angle)
    if spacing is not None:
        voxel = np.asarray(spacing, dtype=float)
        matrix = matrix * voxel / voxel[:, None]  # S^-1 A S
    low, box = _extent(matrix, size)
    excess = np.max(box / np.asarray(largest, dtype=float))
    if excess > 1:
        matrix = matrix / excess
        low, box = _extent(matrix, size)
        box = np.minimum(box, largest)  # rounding may exceed it by a voxel
    half = np.asarray(size, dtype=float) / 2
    inverse = np.linalg.inv(matrix)
    return DeformedShape(_rasterize(kind, inverse, half, low, box), kind, matrix, half, low, inverse)


def shear_and_rotate(rng: np.random.RandomState, dims: int, shear_std: float, max_angle: float) -> np.ndarray:
    """Draw a linear map (D, D): one shear coefficient N(0, std) an axis, then rotations U(-angle, angle)."""
    matrix = np.eye(dims)
    for axis in range(dims if shear_std > 0 else 0):
        other = (axis + 1 + rng.randint(dims - 1)) % dims
        matrix[axis, other] = rng.normal(0, shear_std)
    return random_rotation(rng, dims, max_angle) @ matrix


def random_rotation(rng: np.random.RandomState, dims: int, max_angle: float) -> np.ndarray:
    """Draw a rotation (D, D), the product of one by U(-angle, angle) in the plane of every pair of axes."""
    result = np.eye(dims)
    for a, b in combinations(range(dims), 2):
        angle = rng.uniform(-max_angle, max_angle)
        c, s = math.cos(angle), math.sin(angle)
        result[[a, b]] = c * result[a] - s * result[b], s * result[a] + c * result[b]
    return result


def transform_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Map points (B or 1, M, D) by one matrix (B, D, D) each; not as a product of matrices, which may round more."""
    return (points[..., None, :] * matrix[:, None]).sum(-1)


def relative_radius(points: Tensor, center: Tensor, inverse: Tensor, half: Tensor, box: Tensor) -> Tensor:
    """How far each point lies on its way from a center to the edge of a shape: 0 at the center, 1 at the edge.

    Args:
        points: relative to the center of the shape, in voxels (B, *P, D).
        center: a point inside each shape, in the same coordinates (B, D).
        inverse: inverse of the shapes' matrices (B, D, D).
        half: half sizes of the shapes (B, D).
        box: whether a shape is a box, else an ellipsoid (B,), bool, on the CPU.

    Returns:
        (B, *P), in [0, 1] for points inside the shape.
    """
    start = (inverse * center[:, None]).sum(-1)
    rows = (len(points), -1, points.shape[-1])
    way = transform_points((points - center.reshape(len(center), *[1] * (points.ndim - 2), -1)).reshape(rows), inverse)
    boxes, shape = bool(box.all()), points.shape[:-1]
    if boxes or bool(box.any()):
        # a box: the first wall in the direction of the way; what does not move never reaches one
        forth, back = (half - start).clamp(min=1e-6)[:, None], (half + start).clamp(min=1e-6)[:, None]
        walls = torch.maximum(way / forth, -way / back).amax(-1)
        if boxes:
            return walls.reshape(shape)
    # an ellipsoid: |start + way / rho| = 1 in units of the half axes, solved for rho
    start, way = (start / half)[:, None], way / half[:, None]
    a, b = way.square().sum(-1), (start * way).sum(-1)
    c = start.square().sum(-1) - 1
    sphere = a / ((b.square() - a * c).clamp(min=0).sqrt() - b).clamp(min=1e-12)
    return (torch.where(box.to(a.device)[:, None], walls, sphere) if bool(box.any()) else sphere).reshape(shape)


def _extent(matrix: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first voxel and the size of the bounding box of a mapped box."""
    half = (np.asarray(size) - 1) / 2
    corners = (_corners(len(half)) * half) @ matrix.T
    low = np.floor(corners.min(0))
    return low, (np.ceil(corners.max(0)) - low + 1).astype(int)


@lru_cache(maxsize=4)
def _corners(dims: int) -> np.ndarray:
    """Corners of the cube from -1 to 1, (2^D, D)."""
    return np.array(list(product((-1.0, 1.0), repeat=dims)))


def _rasterize(kind: str, inverse: np.ndarray, half: np.ndarray, low: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return which voxels lie inside, in units of the half axes of the aligned shape, (*P)."""
    inside: np.ndarray | None = None
    distance: np.ndarray | float = 0.0
    for row in inverse / half[:, None]:
        along = [c * (np.arange(n) + x) for c, n, x in zip(row, box, low, strict=True)]
        aligned = along[0]
        for part in along[1:]:
            aligned = aligned[..., None] + part
        if kind == "box":
            within = np.abs(aligned) <= 1 + 1e-9
            inside = within if inside is None else inside & within
        else:
            distance = distance + aligned * aligned
    return np.asarray(distance <= 1 + 1e-9) if inside is None else inside
