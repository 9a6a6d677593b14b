# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial
from typing import Any

from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets.resnet import ResNetBottleneck
from torch import nn


class WideBottleneck(ResNetBottleneck):
    """Block of a wide residual network: the inner convolution is twice as wide, what goes in and out is not.

    ``widen_factor`` of MONAI's ``ResNet`` widens every layer, stem and outputs included; the published WideResNet-50-2
    widens only what lies inside the blocks. Give this class to MONAI's ``ResNet`` as its ``block``.

    Args:
        in_planes: channels of the input.
        planes: a quarter of the output's channels, half of the inner convolution's.
        spatial_dims: 1, 2 or 3 (default).
        stride: of the inner convolution.
        downsample: of the input that is added, where shapes differ.
        norm: normalization, by default batch.
        act: activation, by default ReLU.

    Reference:
        S. Zagoruyko, N. Komodakis: "Wide Residual Networks", BMVC 2016, Section 2.2, applied to the bottleneck of
        K. He et al.: "Deep Residual Learning for Image Recognition", CVPR 2016, as in torchvision.

    Example:
        >>> from monai.networks.nets import ResNet
        >>> from monai_anomaly.networks.nets import WideBottleneck
        >>> network = ResNet(WideBottleneck, [1, 1, 1, 1], [64, 128, 256, 512], spatial_dims=2)
        >>> network.layer1[0].conv2.out_channels, network.layer1[0].conv3.out_channels
        (128, 256)
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        spatial_dims: int = 3,
        stride: int = 1,
        downsample: nn.Module | partial[Any] | None = None,
        act: str | tuple[Any, ...] = ("relu", {"inplace": True}),
        norm: str | tuple[Any, ...] = "batch",
    ) -> None:
        super().__init__(in_planes, 2 * planes, spatial_dims, stride, downsample, act, norm)
        outputs = planes * self.expansion  # MONAI's block made twice as many
        self.conv3 = Conv[Conv.CONV, spatial_dims](2 * planes, outputs, kernel_size=1, bias=False)
        self.bn3 = get_norm_layer(name=norm, spatial_dims=spatial_dims, channels=outputs)
