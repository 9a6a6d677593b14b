# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

DDAD_BINS = 100
DDAD_SMALL = 1e-15


def chi_square_distance(
    scores_healthy: Tensor | Sequence[float],
    scores_anomalous: Tensor | Sequence[float],
    bins: int = 50,
    compat: Literal["ddad"] | None = None,
    normalize: bool = True,
) -> float:
    r"""Return how far apart the scores of healthy and of anomalous images lie, as histograms.

    .. math:: \chi^2 = \frac{1}{2} \sum_b \frac{(P_b - Q_b)^2}{P_b + Q_b}

    with P and Q the histograms of the two groups over equal bins between the lowest and the highest score of both, each
    with sum one. 0: the histograms are the same; 1: they share no bin. It does not tell the direction, and it grows by
    chance where there are few scores a bin: compare only values of equal numbers of images and bins.

    Args:
        scores_healthy: (N,) image scores of the healthy images.
        scores_anomalous: (M,) image scores of the anomalous images.
        bins: number of bins, at least 2; default 50.
        compat: None (default); ``"ddad"``: the definition of the DDAD code, scores scaled to [0, 1] over both groups,
            100 bins whatever ``bins`` is, *densities* instead of shares, and 1e-15 added to numerator and denominator,
            so that every bin that is empty in both groups adds 1/2. It lies between 0 and 149.

        normalize: whether P and Q are shares of their groups; True (default). False: numbers of images, so that the
            distance lies between 0 and (N + M) / 2 and is 0 only for groups of the same size.

    AMAE publishes 38.53 and 58.37 without a definition: they may be 100 times the default one, that of the numbers of
    images, or the DDAD one.

    Raises:
        ValueError: for an empty group, scores that are not finite, or other settings; for numbers of images by the
            definition of DDAD, which has its own.

    Reference:
        Cai et al., "Dual-distribution discrepancy for anomaly detection in chest X-rays", MICCAI 2022.
    """
    if compat not in (None, "ddad"):
        raise ValueError(f"compat must be None or 'ddad', got {compat!r}")
    if compat is not None and not normalize:
        raise ValueError("normalize=False does not go with compat='ddad', whose histograms are densities")
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins!r}")
    healthy, anomalous = _checked(scores_healthy, "scores_healthy"), _checked(scores_anomalous, "scores_anomalous")
    number = DDAD_BINS if compat == "ddad" else bins
    low, high = torch.cat([healthy, anomalous]).aminmax()
    # where all scores are equal every one falls in the first bin, and the distance is 0
    p, q = (_shares((scores - low) / (high - low).clamp_min(1e-300), number) for scores in (healthy, anomalous))
    if compat == "ddad":
        p, q = p * number, q * number
        return float(0.5 * (((p - q) ** 2 + DDAD_SMALL) / (p + q + DDAD_SMALL)).sum())
    if not normalize:
        p, q = p * len(healthy), q * len(anomalous)
    filled = (p + q) > 0
    return float(0.5 * ((p - q)[filled] ** 2 / (p + q)[filled]).sum())


def _shares(scaled: Tensor, bins: int) -> Tensor:
    """Shares of the scores in equal bins of [0, 1]; the last bin includes 1."""
    return torch.bincount((scaled * bins).long().clamp(0, bins - 1), minlength=bins).double() / len(scaled)


def _checked(scores: Tensor | Sequence[float], name: str) -> Tensor:
    values = torch.as_tensor(scores, dtype=torch.float64, device="cpu").detach().flatten()
    if len(values) == 0 or not torch.isfinite(values).all():
        raise ValueError(f"{name} must hold at least one score, all finite, got {values[:5].tolist()}")
    return values
