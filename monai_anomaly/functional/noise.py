# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Smooth random fields: gradient noise, its fractal sum, and coarse Gaussian noise; any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_noise(
    rng: np.random.RandomState, shape: Sequence[int], intervals: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Gradient (Perlin) noise: random unit vectors on a lattice, blended by ``6 t^5 - 15 t^4 + 10 t^3``.

    Computed as one product with a small matrix along each axis, since fade and offset depend on one axis each.

    Args:
        rng: where the directions come from.
        shape: size of the field (D numbers).
        intervals: number of lattice intervals along each axis; need not be whole, need not divide the size.

    Returns:
        a field of that shape, float64, zero at the lattice points; in 2D within +- sqrt(1/2).

    Reference:
        K. Perlin: "Improving Noise", SIGGRAPH 2002.
    """
    dims = len(shape)
    lattice = [int(np.ceil(count)) + 1 for count in intervals]
    gradients = rng.normal(size=(dims, *lattice))
    gradients /= np.maximum(np.sqrt((gradients * gradients).sum(0)), 1e-12)
    fades, offsets = zip(*(_axis(n, r, m) for n, r, m in zip(shape, intervals, lattice, strict=True)), strict=True)
    result = np.zeros(int(np.prod(shape)))
    for direction, part in enumerate(gradients):
        for axis in range(dims):
            matrix = offsets[axis] if axis == direction else fades[axis]
            part = (matrix @ part.reshape(lattice[axis], -1)).T  # the axis goes to the end, the next one comes first
        result += part.ravel()
    return result.reshape(shape)


def fractal_noise(rng: np.random.RandomState, shape: Sequence[int]) -> np.ndarray:
    """Sum of gradient noise over layers, each about twice as fine and half as strong as the one before, in [0, 1].

    The number of intervals of the first layer is ``1 + Exp((M - 1) / 4.5)`` with M a third of the mean size; the number
    of layers ``1 + Poisson(1)``, as far as M allows.

    Args:
        rng: where the numbers come from.
        shape: size of the field (D numbers).

    Returns:
        a field of that shape, float64; 0.5 everywhere where the noise is constant.

    Reference:
        M. Baugh et al.: "Image-conditioned Diffusion Models for Medical Anomaly Detection", 2024 (its code).
    """
    most = max(float(np.mean(shape)) / 3, 1.0)
    count = min(1 + rng.exponential((most - 1) / 4.5), most)
    layers = min(int(np.log2(most / count)) + 1, 1 + rng.poisson(1))
    total = np.zeros(shape)
    for layer in range(layers):
        intervals = np.maximum(count * rng.normal(1, 0.1, len(shape)), 0.1)
        total += gradient_noise(rng, shape, intervals) * 0.5**layer
        count *= 2 * max(rng.normal(1, 0.1), 0.1)
        if count >= most:
            break
    span = np.ptp(total)
    return (total - total.min()) / span if span > 0 else np.full(shape, 0.5)


def coarse_noise(
    rng: np.random.RandomState,
    shape: Sequence[int],
    channels: int,
    resolution: int | Sequence[int] = 16,
    std: float = 0.2,
    per_channel: bool = True,
    roll: bool = True,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Draw what :func:`coarse_field` needs: Gaussian noise on a coarse grid and a cyclic shift of the full field.

    Args:
        rng: where the numbers come from.
        shape: size of the field (D numbers).
        channels: number of channels C.
        resolution: points of the grid along each axis; paper's default 16.
        std: standard deviation on the grid's points, lower between them; paper's default 0.2 for images in [0, 1].
        per_channel: whether each channel gets its own noise; default True.
        roll: whether the field is shifted; default True.

    Returns:
        grid (C, R, ...), float32, and shift in voxels along each axis.

    Raises:
        ValueError: when ``resolution`` is not of as many axes as ``shape``.
    """
    grid = tuple(map(int, resolution if isinstance(resolution, Sequence) else [resolution] * len(shape)))
    if len(grid) != len(shape):
        raise ValueError(f"resolution must be one number, or one for each of {len(shape)} axes, got {resolution!r}")
    values = rng.normal(0, std, (channels if per_channel else 1, *grid)).astype(np.float32)
    shift = tuple(int(rng.randint(length)) if roll else 0 for length in shape)
    return np.repeat(values, 1 if per_channel else channels, axis=0), shift


def coarse_field(grid: Tensor, shape: Sequence[int], shift: Sequence[Sequence[int]]) -> Tensor:
    """Enlarge coarse noise (B, C, R, ...) to a shape, linearly with aligned corners, and shift each sample.

    Reference:
        A. Kascenas, N. Pugeault, A. Q. O'Neil: "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain
        MRI", MIDL 2022.
    """
    field = grid
    for axis, length in enumerate(shape):
        matrix = _interpolation(grid.shape[axis + 2], length).to(grid)
        rows = (np.arange(length) - np.array([step[axis] for step in shift])[:, None]) % length
        moved = matrix[torch.from_numpy(rows).to(grid.device)]  # (B, length, R): interpolated and shifted in one
        last = field.movedim(axis + 2, -1)
        product = torch.bmm(last.reshape(len(grid), -1, last.shape[-1]), moved.mT)
        field = product.reshape(*last.shape[:-1], length).movedim(-1, axis + 2)
    return field.contiguous()


@lru_cache(maxsize=32)
def _interpolation(points: int, length: int) -> Tensor:
    """Linear interpolation of an axis with aligned corners as a matrix (length, points)."""
    eye = torch.eye(points, dtype=torch.float64)[None]
    return F.interpolate(eye, size=length, mode="linear", align_corners=True)[0].T.contiguous()


def _axis(length: int, intervals: float, lattice: int) -> tuple[np.ndarray, np.ndarray]:
    """Fade weights of the lattice points for each voxel of an axis (length, lattice), and the same times the offset."""
    position = np.arange(length) * (intervals / length)
    low = np.minimum(position.astype(int), lattice - 2)
    t = position - low
    fade = t * t * t * (t * (6 * t - 15) + 10)
    weights, offsets = np.zeros((2, length, lattice))
    rows = np.arange(length)
    weights[rows, low], weights[rows, low + 1] = 1 - fade, fade
    offsets[rows, low], offsets[rows, low + 1] = (1 - fade) * t, fade * (t - 1)
    return weights, offsets
