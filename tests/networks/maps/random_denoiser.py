# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A small denoiser whose output depends on its input: what tests of diffusion ask."""

from __future__ import annotations

from monai.networks.nets import DiffusionModelUNet
from torch import nn


def random_denoiser(dims: int = 2) -> nn.Module:
    """Denoiser of images of two channels, with random weights, since its last layers would start at zero."""
    network = DiffusionModelUNet(
        spatial_dims=dims,
        in_channels=4,
        out_channels=2,
        channels=(8, 8),
        attention_levels=(False, True),
        num_res_blocks=1,
        num_head_channels=8,
        norm_num_groups=8,
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.25)
    return network
