# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Radial warps inside a convex shape (M. Baugh et al., MICCAI 2023): a source swells its center, a sink shrinks it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KINDS = ("sink", "source")


def push_exponent(push: float, mean_radius: float) -> float:
    """Exponent of a warp that pushes by a given distance where it pushes most.

    ``k = ln(1/2 - q) / ln(1/2 + q)`` with ``q = push / (sqrt(2) mean_radius)``: the curve r -> r^k lies at the distance
    ``push`` from the diagonal there, on the scale of the mean radius. k is 1 (no warp) for a push of 0.

    Args:
        push: distance in voxels, 0 <= push < mean_radius / sqrt(2).
        mean_radius: mean distance from the center to the edge of the shape in voxels.
    """
    q = push / (np.sqrt(2) * mean_radius) if mean_radius > 0 else 0.0
    if not 0 <= q < 0.5 - 1e-12:
        raise ValueError(f"push must be in [0, mean_radius / sqrt(2)), got push={push!r}, mean_radius={mean_radius!r}")
    return float(np.log(0.5 - q) / np.log(0.5 + q))


def radial_factor(rho: Tensor, exponent: Tensor, sink: Tensor) -> Tensor:
    """Return r'/r, by which the way from the center to a voxel is multiplied to find where its value comes from.

    With ``rho = r/R``, R the distance to the edge: a source reads at ``r' = R rho^k``, a sink at
    ``r' = R (1 - (1 - rho)^k)``. Center and edge stay where they are.

    Args:
        rho: relative radius (B, *P), in [0, 1].
        exponent: k >= 1 (B,).
        sink: whether a shape is a sink, else a source (B,), bool.
    """
    one = [-1, *[1] * (rho.ndim - 1)]
    exponent, sink = exponent.reshape(one), sink.reshape(one)
    rho = rho.clamp(1e-6, 1)  # the center maps to itself whatever the factor
    return torch.where(sink, (1 - (1 - rho) ** exponent) / rho, rho ** (exponent - 1))
