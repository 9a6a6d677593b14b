# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def farthest_points(
    distances_of: Callable[[Tensor], Tensor], valid: Tensor, count: int, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Greedy k-centers: the point farthest from all chosen ones is chosen next, in N sets of points at once.

    The largest distance of any point to the nearest center is at most twice that of the best choice of as many centers
    (T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical Computer Science 38, 1985).

    Args:
        distances_of: takes the index (N,) of one point of each set and gives its distances (N, M) to all of them;
            squared ones or any other that grow with the distance will do.
        valid: (N, M), which points there are; at least one a set.
        count: centers to choose.
        start: distances (N, M) from which the first center is the farthest; the first valid point without them.

    Returns:
        Index (N, count) of the centers in the order of their choice, and the distance (N, count) of each to the centers
        before it: that of the start for the first, then not rising, zero once nothing new is left (and the first center
        again).
    """
    nearest = torch.where(valid, torch.inf if start is None else start, -1.0)
    index = nearest.argmax(dim=1)
    chosen: list[Tensor] = []
    gaps: list[Tensor] = []
    for _ in range(count):
        gap = nearest.gather(1, index[:, None])[:, 0]
        index = torch.where(gap > 0, index, chosen[0] if chosen else index)
        chosen.append(index)
        gaps.append(gap.clamp_min(0))
        nearest = torch.minimum(nearest, distances_of(index))
        nearest.scatter_(1, index[:, None], -1.0)  # chosen for good, whatever the rounding of its distance to itself
        index = nearest.argmax(dim=1)
    return torch.stack(chosen, dim=1), torch.stack(gaps, dim=1)
