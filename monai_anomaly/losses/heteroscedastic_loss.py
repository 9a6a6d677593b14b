# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from torch import Tensor

from ..functional.errors import variance_weighted_error
from ..networks.blocks.outputs import AutoencoderOutput
from ._reduced import ReducedLoss


class HeteroscedasticLoss(ReducedLoss):
    """Gaussian negative log-likelihood with a predicted variance, up to constants: ``exp(-s) (x - mu)^2 + s`` (AE-U).

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which gives the map (B, C, *S).

    Raises:
        ValueError: when ``reduction`` is unknown, or when called on a network that predicts no variance.

    Reference:
        Mao et al., MICCAI 2020, Eq. 3.

    Example:
        >>> import torch
        >>> from monai_anomaly.losses import HeteroscedasticLoss
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> image = torch.zeros(2, 1, 32, 32)
        >>> network = DenseAutoencoder(spatial_size=32, hidden_channels=8, predict_variance=True)
        >>> HeteroscedasticLoss()(network(image), image).shape
        torch.Size([])
    """

    def forward(self, prediction: AutoencoderOutput, target: Tensor) -> Tensor:
        """Loss of what an autoencoder returned against the image (B, C, *S)."""
        if prediction.log_variance is None:
            raise ValueError("HeteroscedasticLoss needs a log_variance: build the network with predict_variance=True.")
        error = variance_weighted_error(prediction.reconstruction, prediction.log_variance, target)
        return self.reduce(error + prediction.log_variance)
