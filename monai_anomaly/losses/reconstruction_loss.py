# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..functional.errors import l2_error
from ..networks.blocks.outputs import AutoencoderOutput
from ..utils import callable_name
from ._reduced import ReducedLoss


class ReconstructionLoss(ReducedLoss):
    """Error between a reconstruction and its image.

    Args:
        error: un-reduced error of (prediction, target): :func:`monai_anomaly.functional.l1_error`, ``l2_error`` (the
            benchmark's) or ``ssim_error``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which gives the map (B, C, *S).

    Raises:
        ValueError: when ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from monai_anomaly.losses import ReconstructionLoss
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> image = torch.zeros(2, 1, 32, 32)
        >>> output = DenseAutoencoder(spatial_size=32, hidden_channels=8)(image)
        >>> ReconstructionLoss()(output, image).shape, ReconstructionLoss(reduction="none")(output, image).shape
        (torch.Size([]), torch.Size([2, 1, 32, 32]))
    """

    def __init__(self, error: Callable[[Tensor, Tensor], Tensor] = l2_error, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.error = error

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"error={callable_name(self.error)}"

    def forward(self, prediction: AutoencoderOutput, target: Tensor) -> Tensor:
        """Loss of what an autoencoder returned against the image (B, C, *S)."""
        return self.reduce(self.error(prediction.reconstruction, target))
