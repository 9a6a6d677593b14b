# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""A network of fixed, random convolutions as a feature extractor: maps of any channels and steps, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.nn import functional as F

POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


class SmallExtractor(nn.Module):
    """Convolutions of one place, after means over squares of ``steps`` pixels.

    Args:
        channels: of each map.
        steps: pixels of a place of each map.
        axes: of the images.
        in_channels: of the images.
    """

    def __init__(self, channels: Sequence[int], steps: Sequence[int], axes: int = 2, in_channels: int = 1) -> None:
        super().__init__()
        self.num_channels = tuple(channels)
        self.in_channels = in_channels
        self.steps, self.axes = list(steps), axes
        self.layers = nn.ModuleList(Conv[Conv.CONV, axes](in_channels, number, 1) for number in channels)
        draw = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw)
            parameter.requires_grad_(False)
        self.asked = 0

    def forward(self, image: Tensor) -> list[Tensor]:
        self.asked += len(image)
        pool = POOL[self.axes]
        return [layer(pool(image, step, ceil_mode=True)) for layer, step in zip(self.layers, self.steps, strict=True)]
