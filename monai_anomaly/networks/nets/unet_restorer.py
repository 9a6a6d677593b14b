# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from ...utils import accept_only_whole_weights


class RestorerOutput(NamedTuple):
    """The healthy version of an image (B, C, *S); the second field is what networks with a variance have."""

    reconstruction: Tensor
    log_variance: Optional[Tensor] = None  # noqa: UP045


class UNetRestorer(nn.Module):
    """The U-Net of a diffusion model as a plain restorer: from an image to its healthy version in one pass.

    What a diffusion model of the same size must be better than to be worth its many passes. It is always asked at noise
    level 0 and sees the image alone.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels C of an image.
        channels: channels of each level.
        attention_levels: whether each level has self-attention.
        num_res_blocks: residual blocks of a level.
        num_head_channels: channels of an attention head.
        norm_num_groups: groups of the group normalization, by which the channels must be divisible.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        attention_levels: Sequence[bool],
        num_res_blocks: int = 2,
        num_head_channels: int = 8,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        self.unet = DiffusionModelUNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=in_channels,
            channels=channels,
            attention_levels=attention_levels,
            num_res_blocks=num_res_blocks,
            num_head_channels=num_head_channels,
            norm_num_groups=norm_num_groups,
        )

    def forward(self, image: Tensor) -> RestorerOutput:
        """Healthy version of images (B, C, *S)."""
        times = torch.zeros_like(image[:, 0].flatten(1)[:, 0]).long()
        return RestorerOutput(self.unet(image, times))
