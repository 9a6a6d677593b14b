# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Poisson blending: paste the gradients of a source, keep the border of the target.

The unknown is the change u = f - t, not the blended f itself: u is zero on the border of the box, and its Laplacian is
the divergence of what the guidance differs from the target's own gradient. Where nothing differs, nothing changes, to
the last bit.

What stays follows the published programs: the border of the patch's box in many-tasks and the image-conditioned
diffusion paper, whose solver works on the box, and in NSA, which takes the border off its mask; the border of the image
alone in PII, whose patches get a box of one voxel more on every side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import fft, sparse
from scipy.sparse import linalg
from torch import Tensor

from .boxes import along_axis, inside_boxes

Array = TypeVar("Array", np.ndarray, Tensor)
MODES = ("mixed", "source", "pii")
SMALLEST_BOX = 3  # one unknown voxel between two of the border


def poisson_blend_boxes(
    target: Tensor,
    source: Tensor,
    mask: Tensor,
    sizes: np.ndarray | Tensor | None = None,
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
        sizes: true size of each box in voxels (B, D), on the CPU; beyond it lies padding. None: all are of size P.
        mode: see :func:`poisson_blend`.
        alpha: see :func:`poisson_blend`; a number or (B,).

    Returns:
        blended boxes (B, C, *P); equal to the target on the border and in the padding.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    mask = mask > 0  # a number above 1 would be no mask for the bitwise operations below
    padded = tuple(target.shape[2:])
    true = np.array([padded] * len(target)) if sizes is None else np.asarray(sizes)
    interior = inside_boxes(true, padded, target.device, border=1)
    if isinstance(alpha, Tensor):
        alpha = alpha.reshape(-1, *[1] * (target.ndim - 1)).to(target)
    weight = (mask & interior).to(target.dtype)
    change = _divergence(target, source, weight, interior, mode, alpha, 2)
    sines = [
        _sine_matrices(true[:, axis], length, target.dtype).to(target.device) for axis, length in enumerate(padded)
    ]
    for axis, matrix in enumerate(sines):
        change = _along(change, matrix, axis + 2)
    change = change / torch.from_numpy(_eigenvalues(true, padded)).to(target)
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
        target: image (C, *S), array or tensor; integers are converted to float32.
        source: box to blend in (C, *P), of the same kind, P >= 3 along every axis.
        mask: voxels of the box that get the guidance (*P), bool; its border is left out, so that a patch all of which
            is to change, as in PII, needs a box of one voxel more on every side. Not modified.
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
        ValueError: when mode, solver or clip is unknown, alpha is not in [0, 1], channels or mask do not fit, the box
            is too small or leaves the image.

    Reference:
        P. Perez, M. Gangnet, A. Blake: "Poisson Image Editing", SIGGRAPH 2003; mode "pii": J. Tan et al.: "Detecting
        Outliers with Poisson Image Interpolation", MICCAI 2021.
    """
    size: tuple[int, ...] = tuple(source.shape[1:])
    _check(target, source, mask, corner, mode, solver, clip)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha!r}")
    target, source, mask = _floating(target), _floating(source), mask > 0
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
        blended = blended.clip(*_channel_range(target))
    changed = mask | (abs(blended - box).mean(0) > tolerance)
    xp = torch if isinstance(target, Tensor) else np
    result[place] = xp.where(changed[None], blended, box)
    support[place[1:]] = changed
    return result, support


def _channel_range(image: Any) -> tuple[Any, Any]:
    """Smallest and largest value of each channel, (C, 1, ...)."""
    flat, shape = image.reshape(len(image), -1), (len(image), *[1] * (image.ndim - 1))
    if isinstance(image, Tensor):
        low, high = torch.aminmax(flat, dim=1)
    else:
        low, high = flat.min(1), flat.max(1)
    return low.reshape(shape), high.reshape(shape)


def _floating(image: Any) -> Any:
    if isinstance(image, Tensor):
        return image if image.is_floating_point() else image.to(torch.float32)
    return image if np.issubdtype(image.dtype, np.floating) else image.astype(np.float32)


def _check(
    target: Any, source: Any, mask: Any, corner: tuple[int, ...], mode: str, solver: str, clip: str | None
) -> None:
    size = tuple(source.shape[1:])
    if len(source) != len(target) or tuple(mask.shape) != size:
        raise ValueError(
            f"a target of {len(target)} channels needs a source (C, *P) of as many and a mask (*P), got "
            f"{tuple(source.shape)} and {tuple(mask.shape)}"
        )
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
    spectrum = fft.dstn(divergence[core], type=1, axes=axes) / _eigenvalues(np.array([size]), size)[0][core]
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


def _sine_matrices(lengths: np.ndarray, padded: int, dtype: torch.dtype) -> Tensor:
    """Orthogonal sine transforms (B, padded, padded) of the interiors; symmetric, each its own inverse."""
    if len(lengths) == 1 and lengths[0] == padded:
        return _sine_matrix(padded, dtype)[None]
    matrices = torch.zeros((len(lengths), padded, padded), dtype=dtype)
    for row, length in enumerate(lengths.tolist()):
        matrices[row, :length, :length] = _sine_matrix(length, dtype)
    return matrices


@lru_cache(maxsize=128)
def _sine_matrix(length: int, dtype: torch.dtype) -> Tensor:
    """Sine transform of the interior of an axis, zero in the row and column of its two ends."""
    n = max(length - 1, 1)
    index = np.arange(length)
    # the product of the indices is reduced first: the sine of a large argument loses digits
    matrix = np.sin((index[:, None] * index % (2 * n)) * (math.pi / n)) * math.sqrt(2 / n)
    matrix[[0, -1]] = matrix[:, [0, -1]] = 0
    return torch.from_numpy(matrix).to(dtype)


def _eigenvalues(sizes: np.ndarray, padded: tuple[int, ...]) -> np.ndarray:
    """Eigenvalues of the Laplacian with a zero border for each box, (B, 1, *P); negative everywhere."""
    total = np.zeros((1, *[1] * len(padded)))
    for axis, length in enumerate(padded):
        n = np.maximum(sizes[:, axis : axis + 1] - 1, 1)
        along = 2 * np.cos(np.clip(np.arange(length), 1, n) * (math.pi / n)) - 2
        total = total + along_axis(along, axis, len(padded))
    return total[:, None]


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
