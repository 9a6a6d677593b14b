# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors between what a network predicts of features and the features themselves, one list of maps each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

from .errors import ssim_error


def feature_ssim_error(
    prediction: Tensor,
    target: Tensor,
    value_range: Sequence[float] = (-4.0, 4.0),
    win_size: int = 5,
    sigma: float = 1.5,
    compat: str | None = None,
) -> Tensor:
    """One minus the structural similarity of each channel of features around each place, (B, C, *G).

    Structural similarity has a scale: two constants that belong to a range of values, and a term that compares means
    and supposes that they are not negative. For standardized features a range of four deviations on each side is that
    scale, which :func:`monai_anomaly.functional.ssim_error` maps to [0, 1]; the few values outside are not clamped.

    Args:
        prediction: predicted features (B, C, *G).
        target: features (B, C, *G), with two or three spatial axes.
        value_range: smallest and largest value supposed; default (-4, 4).
        win_size: width of the Gaussian window in places, odd; default 5, as in FAE.
        sigma: deviation of the window in places; default 1.5.
        compat: ``"upd"`` takes the features as they are, with the constants of a range of 1 and zeros beyond the
            border, as the code of FAE and of the study of Lagogiannis et al., IEEE TMI 2023, does.

    Raises:
        ValueError: when ``compat`` is unknown, or the window is larger than the grid.

    Reference:
        F. Meissen, J. Paetzold, G. Kaissis, D. Rueckert: "Unsupervised Anomaly Localization with Structural
        Feature-Autoencoders", BrainLes at MICCAI 2022.
    """
    if compat not in (None, "upd"):
        raise ValueError(f"compat must be None or 'upd', got {compat!r}.")
    if compat is None:
        return ssim_error(prediction, target, value_range, win_size, sigma)
    axes = target.ndim - 2
    prediction, target = (F.pad(features, [win_size // 2] * (2 * axes)) for features in (prediction, target))
    return 1 - compute_ssim_and_cs(prediction, target, axes, (win_size,) * axes, (sigma,) * axes)[0]


def direction_error(prediction: Sequence[Tensor], target: Sequence[Tensor], whole: bool = False) -> Tensor:
    """One minus the cosine similarity of features, for each image and layer (B, L), in [0, 2].

    Args:
        prediction: predicted features, one tensor (B, C_i, *S_i) a layer.
        target: features of the same shapes.
        whole: False (default): the vectors of channels are compared place by place, and the mean over the places is
            taken; True: all numbers of a map are one vector, so that places with large numbers count more.
    """
    layers = []
    for made, wanted in zip(prediction, target, strict=True):
        if whole:
            made, wanted = made.flatten(1)[..., None], wanted.flatten(1)[..., None]
        layers.append((1 - F.cosine_similarity(made, wanted, dim=1)).flatten(1).mean(1))
    return torch.stack(layers, 1)


def value_error(prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of features, for each image and layer (B, L).

    Args:
        prediction: predicted features, one tensor (B, C_i, *S_i) a layer.
        target: features of the same shapes.
    """
    layers = [(a - b).square().flatten(1).mean(1) for a, b in zip(prediction, target, strict=True)]
    return torch.stack(layers, 1)
