# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import ResNet

from monai_anomaly.networks.nets import WideBottleneck


@pytest.mark.parametrize("dims", [2, 3])
def test_widens_the_inner_convolution_alone(dims: int) -> None:
    network = ResNet(
        WideBottleneck, [1, 2, 1, 1], [8, 16, 32, 64], spatial_dims=dims, n_input_channels=1, num_classes=3
    )
    for stage, planes in zip((network.layer1, network.layer2), (8, 16), strict=True):
        for block in stage:
            inner = [
                block.conv1.out_channels,
                block.conv2.in_channels,
                block.conv2.out_channels,
                block.conv3.in_channels,
            ]
            assert inner == [2 * planes] * 4 and block.conv3.out_channels == block.bn3.num_features == 4 * planes
    assert network.conv1.out_channels == 8
    assert network.eval()(torch.zeros(1, 1, *[16] * dims)).shape == (1, 3)
