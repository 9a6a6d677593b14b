# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from monai.networks.blocks import Convolution
from torch import Tensor, nn

from ...utils import accept_only_whole_weights


class RefinementNet(nn.Sequential):
    """Three convolutions that turn maps of disagreement into a segmentation: the ASR-Net of DDAD.

    Two convolutions of width 3 with batch normalization and ReLU, one without; all have a bias.

    Args:
        spatial_dims: 2 or 3; 2 in the paper.
        in_channels: number of maps, default 2: inter- and intra-discrepancy; 1 for the intra-discrepancy alone.
        hidden_channels: width of the two inner layers, paper's default 128.

    Raises:
        ValueError: when an argument is outside its range.

    Reference:
        Y. Cai, H. Chen, X. Yang, Y. Zhou, K.-T. Cheng: "Dual-distribution discrepancy with self-supervised refinement
        for anomaly detection in medical images", Medical Image Analysis 2023.
    """

    def __init__(self, spatial_dims: int, in_channels: int = 2, hidden_channels: int = 128) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}.")
        if in_channels < 1 or hidden_channels < 1:
            raise ValueError(
                f"in_channels and hidden_channels must be positive, got {in_channels!r} and {hidden_channels!r}."
            )
        super().__init__(
            Convolution(spatial_dims, in_channels, hidden_channels, adn_ordering="NA", act="relu", norm="batch"),
            Convolution(spatial_dims, hidden_channels, hidden_channels, adn_ordering="NA", act="relu", norm="batch"),
            Convolution(spatial_dims, hidden_channels, 2, conv_only=True),
        )
        self.in_channels = in_channels
        accept_only_whole_weights(self)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits of healthy and anomalous (B, 2, *S) from maps (B, ``in_channels``, *S)."""
        for layer in self:
            maps = layer(maps)
        return maps
