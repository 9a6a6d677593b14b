# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Samples of a stream of vectors that depend on what the vectors are, not on when they come.

Every vector draws a priority from its own content, and those of the lowest priorities are kept: the k lowest of a union
are among the k lowest of its parts (bottom-k sketch: E. Cohen, H. Kaplan, "Summarizing Data using Bottom-k Sketches",
PODC 2007), so neither the order of a stream nor its division into batches or processes changes the sample, and what
comes twice counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# How often the priority runs through [0, 1) while the product with the direction grows by one. Vectors a hundredth of
# their length apart draw unrelated priorities; the rounding of float32 features moves one by some 1e-5.
_TURNS = 64.0
# Finer than the distance of any two priorities that matter, coarser than the rounding of sums in another order.
_STEP = 2.0**-40


def content_priority(features: Tensor, direction: Tensor, phase: Tensor | None = None, length: bool = True) -> Tensor:
    """A number in [0, 1) for each vector v, nearly uniform, from its content alone.

    The fraction of ``64 (w . v/|v| + log |v|) + phase`` with a random direction w. Not a hash of bits: features that
    differ by the rounding of another batch size keep nearly the same priority.

    Args:
        features: vectors (B, D, N), in float32 or float64.
        direction: w (D,), standard normal.
        phase: (N,), shifts the priorities of each place, so that neighbors sample different images; none by default.
        length: whether the term ``log |v|`` counts, without which vectors of equal direction are one and the same.

    Returns:
        (B, N), float64: rounding in float32 would decide which vector is kept.
    """
    vectors = features.double()
    norm = vectors.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    turns = torch.einsum("bdn,d->bn", vectors, direction.double()) / norm
    if length:
        turns = turns + norm.log()
    turns = _TURNS * turns if phase is None else _TURNS * turns + phase.double()
    return (turns / _STEP).round().mul(_STEP).remainder(1.0)


def place_phases(grid: Sequence[int]) -> Tensor:
    """Phases (N,) of the places of a grid *G, N = prod(G), spread evenly over [0, 1) in every neighborhood.

    The additive recurrence with the inverse powers of the root of ``x^(n + 1) = x + 1`` (the golden ratio for one axis,
    the plastic number for two), indexed by the place's coordinates.
    """
    root = 2.0
    for _ in range(64):  # converges linearly with a factor below 0.4
        root = (1 + root) ** (1 / (len(grid) + 1))
    phases = torch.zeros(tuple(grid), dtype=torch.float64)
    for axis, cells in enumerate(grid):
        shape = [cells if other == axis else 1 for other in range(len(grid))]
        phases = phases + torch.arange(cells, dtype=torch.float64).reshape(shape) * root ** -(axis + 1)
    return phases.remainder(1.0).flatten()


def lowest_distinct(priorities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` lowest different priorities of each place, ascending.

    Args:
        priorities: (N, M), infinite where there is no vector.
        count: how many to keep, at least one.

    Returns:
        Priorities (N, min(count, M)), infinite where there are not so many, and their index in 0 ... M - 1.
    """
    ascending, order = priorities.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ascending, dtype=torch.bool)
    repeated[:, 1:] = ascending[:, 1:] == ascending[:, :-1]
    distinct, first = ascending.masked_fill(repeated, torch.inf).sort(dim=1, stable=True)
    return distinct[:, :count], order.gather(1, first[:, :count])


def lowest_vectors(priorities: Sequence[Tensor], vectors: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Join samples and keep the ``count`` lowest different priorities.

    Args:
        priorities: (M_i,) each.
        vectors: (M_i, D) each.
        count: how many to keep at most.

    Returns:
        Priorities (n,), ascending, and their vectors (n, D).
    """
    lowest, index = lowest_distinct(torch.cat(list(priorities))[None], count)
    there = lowest[0].isfinite()
    return lowest[0, there], torch.cat(list(vectors))[index[0, there]]
