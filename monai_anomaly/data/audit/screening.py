# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Pairs of vectors with a large inner product, found from few coordinates without missing any.

With an orthonormal basis ``P`` of a few directions and ``r(x) = ||x - P^T P x||``, the inequality of Cauchy and Schwarz
gives ``<x, y> <= <P x, P y> + r(x) r(y)``. Images of one kind vary in few directions, so that the bound is close; only
the pairs that it does not rule out are compared whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# of rounding: inner products of unit vectors in single precision are good to about 1e-6
_SLACK = 1e-5
_PAIRS = 1 << 14
# rows at a time, so that their bounds stay in the processor's cache
_ROWS = 1024
# from this share of pairs on, one product of all vectors is cheaper than gathering them pair by pair
_MANY = 0.05


class Screen:
    """Coordinates of vectors in the leading directions of a sample.

    Args:
        sample: (N, D) vectors like those that will be compared.
        rank: directions to keep; at most N and D.
    """

    def __init__(self, sample: Tensor, rank: int = 63) -> None:
        _, _, directions = torch.linalg.svd(sample, full_matrices=False)
        self.basis = directions[:rank].T.contiguous()

    def coordinates(self, vectors: Tensor) -> Tensor:
        """Return (N, rank + 1) coordinates of (N, D) vectors, the last the length of what the others leave out."""
        inside = vectors @ self.basis
        rest = (vectors.square().sum(1) - inside.square().sum(1)).clamp_min(0).sqrt()
        return torch.cat([inside, rest[:, None]], 1)


def products_above(
    vectors: tuple[Tensor, Tensor], coordinates: tuple[Tensor, Tensor], least: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the pairs of two sets of vectors whose inner product may be as large as asked, and these products.

    Args:
        vectors: (M, D) and (K, D).
        coordinates: of these, from one :class:`Screen`.
        least: (M,) the product that a pair of each left vector must reach.

    Returns:
        (P,) positions ``row * K + column`` and (P,) inner products; every pair at or above ``least`` is among them,
        some below it may be.
    """
    (left, right), (mine, theirs) = vectors, coordinates
    starts = range(0, len(left), _ROWS)
    parts = [
        _block_above(left[i : i + _ROWS], right, mine[i : i + _ROWS], theirs, least[i : i + _ROWS]) for i in starts
    ]
    positions = [found + start * len(right) for start, (found, _) in zip(starts, parts, strict=True)]
    return torch.cat(positions), torch.cat([products for _, products in parts])


def _block_above(left: Tensor, right: Tensor, mine: Tensor, theirs: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    bound, wanted = mine @ theirs.T, least[:, None] - _SLACK
    rows = (bound.amax(1) >= wanted[:, 0]).nonzero()[:, 0]
    inside, columns = (bound[rows] >= wanted[rows]).nonzero().T
    if len(columns) > _MANY * bound.numel():
        exact = left[rows] @ right.T
        inside, columns = (exact >= wanted[rows]).nonzero().T
        return rows[inside] * len(right) + columns, exact[inside, columns]
    row = rows[inside]
    products = [(left[i] * right[j]).sum(1) for i, j in zip(row.split(_PAIRS), columns.split(_PAIRS), strict=True)]
    return row * len(right) + columns, torch.cat(products)


def stacked(images: Sequence[Tensor] | Tensor, positions: Tensor | None = None) -> Tensor:
    """Stack images of one shape; those that follow each other in one tensor's memory are not copied.

    Args:
        images: tensors of one shape, or one tensor of all.
        positions: which of them, in which order; None: all.
    """
    if isinstance(images, Tensor):
        return images if positions is None else images[positions]
    chosen = images if positions is None else [images[i] for i in positions.tolist()]
    first, size = chosen[0], chosen[0].numel()
    whole = first._base
    following = whole is not None and all(
        image._base is whole and image.storage_offset() == first.storage_offset() + i * size
        for i, image in enumerate(chosen)
    )
    if whole is None or not following or whole.shape[1:] != first.shape:
        return torch.stack(list(chosen))
    start = first.storage_offset() // size
    return whole[start : start + len(chosen)]
