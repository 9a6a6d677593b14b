# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Moments of vectors about their own mean, in float64; N sets of vectors at once, over n samples y = x - mean."""

    number: Tensor
    """n."""
    mean: Tensor
    """(N, d)."""
    scatter: Tensor
    """(N, d, d), the sum of y y^T."""
    cubes: Tensor
    """(N, d), the sum of |y|^2 y; empty where nobody asks for it."""
    fourths: Tensor
    """(N,), the sum of |y|^4; empty where nobody asks for it."""


def moments_of(vectors: Tensor, higher: bool = False) -> Moments:
    """Moments of vectors (n, N, d); ``higher`` for the third and the fourth too."""
    vectors = vectors.double()
    mean = vectors.mean(dim=0)
    centered = (vectors - mean).transpose(0, 1)  # (N, n, d)
    scatter = centered.transpose(1, 2) @ centered
    squares = centered.square().sum(dim=2, keepdim=True) if higher else centered[:0, :, :1]
    cubes = (squares * centered[: len(squares)]).sum(dim=1)
    return Moments(torch.tensor(len(vectors)), mean, scatter, cubes, squares.square().sum(dim=(1, 2)))


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Moments of two sets of samples together.

    Each is moved to the common mean, with differences of means only and never of large sums (T. F. Chan, G. H. Golub,
    R. J. LeVeque: "Algorithms for Computing the Sample Variance", The American Statistician 37, 1983), so that a mean
    far from zero costs no digits. ``scatter`` of the first is updated in place.
    """
    number = first.number + second.number
    share = second.number.double() / number  # whole numbers would divide to float32
    gap = second.mean - first.mean
    one, other = _about(first, share * gap), _about(second, (share - 1) * gap)
    scatter = first.scatter.add_(second.scatter).add_(gap[:, :, None] * gap[:, None] * (first.number * share))
    return Moments(number, first.mean + share * gap, scatter, one[0] + other[0], one[1] + other[1])


def _about(moments: Moments, step: Tensor) -> tuple[Tensor, Tensor]:
    """Third and fourth moments about mean + step instead of the mean, about which the first one is zero."""
    n, _, scatter, cubes, fourths = moments
    if not fourths.numel():
        return cubes, fourths
    trace, square = scatter.diagonal(dim1=1, dim2=2).sum(dim=1), step.square().sum(dim=1)
    along = (scatter @ step[:, :, None])[:, :, 0]
    quadratic = (along * step).sum(dim=1)
    moved = fourths + 4 * quadratic + n * square.square() - 4 * (cubes * step).sum(dim=1) + 2 * square * trace
    return cubes - step * (trace + n * square)[:, None] - 2 * along, moved


def ledoit_wolf_share(moments: Moments) -> Tensor:
    """Share (N,), in [0, 1], by which Ledoit and Wolf shrink a covariance to the multiple of the identity of its trace.

    ``min(b^2, d^2) / d^2`` with ``d^2 = ||S - m I||^2``, ``b^2 = (sum |y|^4 / n - ||S||^2) / n``, ``m = tr(S) / d`` and
    the biased covariance S.

    Reference:
        O. Ledoit, M. Wolf: "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
        Multivariate Analysis 88, 2004, Section 3.
    """
    n, length = moments.number, moments.mean.shape[1]
    covariance = moments.scatter / n
    trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
    square = covariance.square().sum(dim=(1, 2))
    spread = square - trace.square() / length
    noise = ((moments.fourths / n - square) / n).clamp_min(0)
    return torch.where(spread > 0, torch.minimum(noise, spread) / spread, 0.0)
