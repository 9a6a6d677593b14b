# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import resnet18

from monai_anomaly.networks.nets import ZeroShortcut


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_is_shortcut_a_of_monai(dims: int, stride: int) -> None:
    network = resnet18(spatial_dims=dims, n_input_channels=1, shortcut_type="A")
    features = torch.rand(2, 3, *[7] * dims)
    expected = network._downsample_basic_block(features, planes=5, stride=stride, spatial_dims=dims)
    assert torch.equal(ZeroShortcut(3, 5, stride, dims)(features), expected)
