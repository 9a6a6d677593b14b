# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Poisson blending: paste the gradients of a source, keep the border of the target.

The unknown is the change u = f - t, not the blended f itself: u is zero on the border of the box, and its Laplacian is
the divergence of what the guidance differs from the target's own gradient. Where nothing differs, nothing changes, to
the last bit.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import fft, sparse
from scipy.sparse import linalg
from torch import Tensor

from .boxes import inside_boxes

Array = TypeVar("Array", np.ndarray, Tensor)
MODES = ("mixed", "source", "pii")
SMALLEST_BOX = 3  # one unknown voxel between two of the border


def poisson_blend_boxes(
    target: Tensor,
    source: Tensor,
    mask: Tensor,
    sizes: Tensor | None = None,
    mode: str = "mixed",
    alpha: Tensor | float = 1.0,
) -> Tensor:
    """Blend a batch of boxes of different sizes at once, on any device, differentiably.

    The discrete sine transform is a product with a sine matrix, one for each size, so that boxes padded to a common
    size are solved exactly, each on its own.

    Args:
        target: boxes cut out of the images (B, C, *P).
        source: boxes to blend in (B, C, *P).
        mask: voxels that get the guidance (B, 1, *P), bool; the border of a box never does.
        sizes: true size of each box in voxels (B, D); beyond it lies padding. None: all are of size P.
        mode: see :func:`poisson_blend`.
        alpha: see :func:`poisson_blend`; a number or (B,).

    Returns:
        blended boxes (B, C, *P); equal to the target on the border and in the padding.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    padded = tuple(target.shape[2:])
    if sizes is None:
        sizes = torch.tensor([padded] * len(target))
    sizes = sizes.to(target.device)
    interior = inside_boxes(sizes, padded, border=1)
    if isinstance(alpha, Tensor):
        alpha = alpha.reshape(-1, *[1] * (target.ndim - 1)).to(target)
    weight = (mask & interior).to(target.dtype)
    change = _divergence(target, source, weight, interior.to(target.dtype), mode, alpha, 2)
    sines = [_sine_matrices(sizes[:, axis], length, target.dtype) for axis, length in enumerate(padded)]
    for axis, matrix in enumerate(sines):
        change = _along(change, matrix, axis + 2)
    change = change / _eigenvalues(sizes, padded, target.dtype)
    for axis, matrix in enumerate(sines):
        change = _along(change, matrix, axis + 2)
    return target + change


def poisson_blend(
    target: Array,
    source: Array,
    mask: Array,
    corner: tuple[int, ...],
    mode: str = "mixed",
    alpha: float = 1.0,
    solver: str = "dst",
    clip: str | None = "channel",
    tolerance: float = 1e-3,
) -> tuple[Array, Array]:
    """Blend a source into one image, without a seam.

    Solves ``laplace f = div w`` in the box of the source, with the target as the border. The field w is the target's
    gradient outside the mask and the guidance inside, by forward differences along each axis:

    * ``"source"``: gradient of the source;
    * ``"mixed"``: the larger in magnitude of the target's and the source's, along each axis by itself;
    * ``"pii"``: the larger in magnitude of ``(1 - alpha)`` times the target's and ``alpha`` times the source's.

    Args:
        target: image (C, *S), floating point, array or tensor.
        source: box to blend in (C, *P), of the same kind, P >= 3 along every axis.
        mask: voxels of the box that get the guidance (*P), bool; its border is left out. Not modified.
        corner: lower corner of the box in the target, in voxels; the box must lie inside.
        mode: guidance, one of the above; default "mixed" (many-tasks, image-conditioned diffusion).
        alpha: weight of the foreign image in [0, 1], read by "pii" alone.
        solver: "dst" (default) solves on the whole box by a discrete sine transform, so that voxels of the box outside
            the mask may change, too; "sparse" holds all voxels outside the mask and factorizes a sparse matrix, as
            published for PII: slow, arrays only.
        clip: "channel" (default) clips each channel to the target's range, None does not.
        tolerance: mean absolute change over the channels above which a voxel outside the mask counts as changed;
            smaller changes there are undone. Paper's default 1e-3 for images in [0, 1].

    Returns:
        blended image (C, *S) and its support (*S), bool: the mask and what else has changed.

    Raises:
        ValueError: when mode, solver or clip is unknown, the box is too small or leaves the image.

    Reference:
        P. Perez, M. Gangnet, A. Blake: "Poisson Image Editing", SIGGRAPH 2003; mode "pii": J. Tan et al.: "Detecting
        Outliers with Poisson Image Interpolation", MICCAI 2021.
    """
    size = tuple(int(length) for length in source.shape[1:])
    _check(target, size, corner, mode, solver, clip)
    place = (slice(None), *[slice(low, low + length) for low, length in zip(corner, size, strict=True)])
    box = target[place]
    if isinstance(target, Tensor):
        blended = poisson_blend_boxes(box[None], source[None], mask[None, None], None, mode, alpha)[0]
        support = torch.zeros(target.shape[1:], dtype=torch.bool, device=target.device)
        result = target.clone()
    else:
        blended = _blend_array(box, source, mask, mode, alpha, solver)
        support = np.zeros(target.shape[1:], dtype=bool)
        result = target.copy()
    if clip:
        rest = tuple(range(1, target.ndim))
        keep = (len(target), *[1] * len(rest))
        blended = blended.clip(_extreme(target, rest, "min").reshape(keep), _extreme(target, rest, "max").reshape(keep))
    changed = mask | (abs(blended - box).mean(0) > tolerance)
    xp = torch if isinstance(target, Tensor) else np
    result[place] = xp.where(changed[None], blended, box)
    support[place[1:]] = changed
    return result, support


def _extreme(image: Any, axes: tuple[int, ...], which: str) -> Any:
    if isinstance(image, Tensor):
        return getattr(torch, f"a{which}")(image, dim=axes)
    return getattr(image, which)(axis=axes)


def _check(
    target: Any, size: tuple[int, ...], corner: tuple[int, ...], mode: str, solver: str, clip: str | None
) -> None:
    for name, value, known in (
        ("mode", mode, MODES),
        ("solver", solver, ("dst", "sparse")),
        ("clip", clip, ("channel", None)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, got {value!r}")
    if min(size) < SMALLEST_BOX:
        raise ValueError(f"the box to blend must have {SMALLEST_BOX} voxels along every axis, got {size}")
    whole = tuple(target.shape[1:])
    if any(low < 0 or low + length > n for low, length, n in zip(corner, size, whole, strict=True)):
        raise ValueError(f"the box at {tuple(corner)} of size {size} leaves the image of size {whole}")
    if solver == "sparse" and isinstance(target, Tensor):
        raise ValueError('solver="sparse" takes NumPy arrays; tensors are solved by solver="dst"')


def _blend_array(
    target: np.ndarray, source: np.ndarray, mask: np.ndarray, mode: str, alpha: float, solver: str
) -> np.ndarray:
    """Return the blended box (C, *P) of arrays, computed in float64."""
    t, s = target.astype(np.float64), source.astype(np.float64)
    size = t.shape[1:]
    interior = np.zeros(size, dtype=bool)
    interior[tuple([slice(1, -1)] * len(size))] = True
    inside = mask.astype(bool) & interior
    if solver == "sparse":
        both = _divergence(t, s, inside.astype(np.float64)[None], 1.0, mode, alpha, 1, both_ends=True)
        return (t + _solve_sparse(both, inside)).astype(target.dtype)
    divergence = _divergence(t, s, inside.astype(np.float64)[None], interior.astype(np.float64)[None], mode, alpha, 1)
    core = (slice(None), *[slice(1, -1)] * len(size))
    axes = tuple(range(1, t.ndim))
    spectrum = fft.dstn(divergence[core], type=1, axes=axes) / _eigenvalues_of_box(size)
    t[core] += fft.idstn(spectrum, type=1, axes=axes)
    return t.astype(target.dtype)


def _divergence(
    target: Any, source: Any, weight: Any, interior: Any, mode: str, alpha: Any, first: int, both_ends: bool = False
) -> Any:
    """Divergence of what the guidance differs from the target's gradient, zero outside ``interior``.

    An edge counts by the weight of its lower voxel; for "pii" and with ``both_ends`` by either of its voxels.
    """
    result = target * 0.0
    for axis in range(first, target.ndim):
        lower, upper = _slices(target.ndim, axis)
        own, foreign = target[upper] - target[lower], source[upper] - source[lower]
        guide = _guidance(own, foreign, mode, alpha)
        if both_ends or mode == "pii":
            on = weight[lower] + weight[upper] - weight[lower] * weight[upper]
        else:
            on = weight[lower]
        difference = on * (guide - own)
        result[lower] += difference
        result[upper] -= difference
    return result * interior


def _guidance(own: Any, foreign: Any, mode: str, alpha: Any) -> Any:
    if mode == "source":
        return foreign
    if mode == "pii":
        own, foreign = (1 - alpha) * own, alpha * foreign
        stays = abs(own) > abs(foreign)
    else:
        stays = abs(own) >= abs(foreign)
    return torch.where(stays, own, foreign) if isinstance(own, Tensor) else np.where(stays, own, foreign)


def _slices(ndim: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    lower, upper = [[slice(None)] * ndim for _ in range(2)]
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    return tuple(lower), tuple(upper)


def _sine_matrices(sizes: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Orthogonal sine transforms (B, length, length) of the interiors; symmetric, each its own inverse."""
    index = torch.arange(length, device=sizes.device)
    n = (sizes - 1).clamp(min=1)[:, None, None]
    inside = (index >= 1) & (index < sizes[:, None] - 1)
    # the product of the indices is reduced before it becomes a float: the sine of a large argument loses digits
    angle = ((index[:, None] * index) % (2 * n)).to(torch.float64) * (math.pi / n)
    matrix = torch.sin(angle) * torch.sqrt(2.0 / n.to(torch.float64))
    return (matrix * (inside[:, :, None] & inside[:, None, :])).to(dtype)


def _eigenvalues(sizes: Tensor, padded: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Eigenvalues of the Laplacian with a zero border for each box, (B, 1, *P); negative everywhere."""
    total = torch.zeros((len(sizes), 1, *[1] * len(padded)), dtype=torch.float64, device=sizes.device)
    for axis, length in enumerate(padded):
        n = (sizes[:, axis : axis + 1] - 1).clamp(min=1)
        index = torch.arange(length, device=sizes.device).clamp(min=1)
        along = 2 * torch.cos(torch.minimum(index, n) * (math.pi / n)) - 2
        total = total + along.reshape(-1, 1, *[length if a == axis else 1 for a in range(len(padded))])
    return total.to(dtype)


def _eigenvalues_of_box(size: tuple[int, ...]) -> np.ndarray:
    total = np.zeros([1] * (len(size) + 1))
    for axis, length in enumerate(size):
        along = 2 * np.cos(np.pi * np.arange(1, length - 1) / (length - 1)) - 2
        total = total + along.reshape([-1 if a == axis + 1 else 1 for a in range(len(size) + 1)])
    return total


def _along(values: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Multiply one axis of (B, C, *P) by a symmetric matrix of each sample."""
    moved = values.movedim(axis, -1)
    product = torch.bmm(moved.reshape(len(values), -1, moved.shape[-1]), matrices)
    return product.reshape(moved.shape).movedim(-1, axis)


def _solve_sparse(divergence: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Solve the change of the voxels in ``inside`` with all others held; (C, *P), zero elsewhere."""
    count = int(inside.sum())
    result = np.zeros_like(divergence)
    if count == 0:
        return result
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(count)
    laplacian = sparse.diags([np.full(count, -2.0 * inside.ndim)], [0], format="lil")
    for axis in range(inside.ndim):
        lower, upper = _slices(inside.ndim, axis)
        one, other = number[lower].ravel(), number[upper].ravel()
        pair = (one >= 0) & (other >= 0)
        ones = np.ones(int(pair.sum()))
        edges = sparse.coo_matrix((ones, (one[pair], other[pair])), shape=(count, count))
        laplacian = laplacian + edges + edges.T
    factors = linalg.splu(sparse.csc_matrix(laplacian))
    for channel, values in zip(result, divergence, strict=True):
        channel[inside] = factors.solve(values[inside])
    return result
