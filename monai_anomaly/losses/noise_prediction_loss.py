# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ._reduced import ReducedLoss


class NoiseTarget(NamedTuple):
    """Noise that a network is to predict (B, C, *S), and how much each image counts (B,)."""

    noise: Tensor
    weight: Tensor


class NoisePredictionLoss(ReducedLoss):
    """Weighted squared error of predicted noise, ``mean_b w_b mean (eps' - eps)^2``.

    The weights come with the target, since they follow from the noise level: all 1, or those of
    :func:`monai_anomaly.functional.min_snr_weight`.

    Args:
        reduction: ``"mean"`` (default) or ``"sum"`` over the images, or ``"none"``, one value an image (B,).

    Reference:
        J. Ho, A. Jain, P. Abbeel: "Denoising Diffusion Probabilistic Models", NeurIPS 2020, Eq. 14.
    """

    def forward(self, prediction: Tensor, target: NoiseTarget) -> Tensor:
        """Loss of predicted noise (B, C, *S).

        Raises:
            ValueError: when prediction and noise differ in shape.
        """
        if prediction.shape != target.noise.shape:
            raise ValueError(
                f"prediction and noise must be of one shape, got {tuple(prediction.shape)}, {tuple(target.noise.shape)}"
            )
        error = (prediction.float() - target.noise).square().flatten(1).mean(1)
        return self.reduce(target.weight * error)
