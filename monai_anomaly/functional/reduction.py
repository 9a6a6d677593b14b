# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""From an anomaly map to one score for the image. All take (B, 1, *S) and return (B, 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def _flat_map(anomaly_map: Tensor, foreground: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values (B, N) and which of them count (B, N); a NaN in the foreground counts, so that it shows in the score."""
    if anomaly_map.ndim < 3 or anomaly_map.shape[1] != 1:
        raise ValueError(f"anomaly_map must be (B, 1, *S), got shape {tuple(anomaly_map.shape)}.")
    values = anomaly_map.flatten(1)
    if foreground is None:
        return values, torch.ones_like(values, dtype=torch.bool)
    if foreground.shape != anomaly_map.shape:
        raise ValueError(
            f"foreground must have the map's shape {tuple(anomaly_map.shape)}, got {tuple(foreground.shape)}."
        )
    inside = foreground.flatten(1) > 0
    if not bool(inside.any(1).all()):
        raise ValueError("an image has an empty foreground: there is nothing to score; check its foreground mask.")
    return values, inside


def mean_score(anomaly_map: Tensor, foreground: Tensor | None = None) -> Tensor:
    """Mean of the map, the score of the D2UE, DDAD and MedIAnomaly benchmarks.

    Args:
        anomaly_map: (B, 1, *S).
        foreground: optional mask (B, 1, *S); only pixels > 0 count.

    Returns:
        (B, 1).
    """
    values, inside = _flat_map(anomaly_map, foreground)
    return values.masked_fill(~inside, 0.0).sum(1, keepdim=True) / inside.sum(1, keepdim=True)


def max_score(anomaly_map: Tensor, foreground: Tensor | None = None) -> Tensor:
    """Largest value of the map, the score of the UPD study on MRI and fundus images.

    Args:
        anomaly_map: (B, 1, *S).
        foreground: optional mask (B, 1, *S); only pixels > 0 count.

    Returns:
        (B, 1).
    """
    values, inside = _flat_map(anomaly_map, foreground)
    return values.masked_fill(~inside, -torch.inf).amax(1, keepdim=True)


def top_fraction_score(anomaly_map: Tensor, foreground: Tensor | None = None, fraction: float = 0.25) -> Tensor:
    """Mean of the largest values of the map: between the maximum (0) and the mean (1).

    Args:
        anomaly_map: (B, 1, *S).
        foreground: optional mask (B, 1, *S); only pixels > 0 count.
        fraction: share of the pixels (of the foreground) that count, in [0, 1]; at least one pixel is taken.

    Returns:
        (B, 1).

    Raises:
        ValueError: when ``fraction`` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}.")
    values, inside = _flat_map(anomaly_map, foreground)
    values = values.masked_fill(~inside, -torch.inf).sort(dim=1, descending=True).values
    counted = (inside.sum(1, keepdim=True).double() * fraction).ceil().long().clamp_min(1)
    taken = torch.arange(values.shape[1], device=values.device) < counted
    return values.masked_fill(~taken, 0.0).sum(1, keepdim=True) / counted
