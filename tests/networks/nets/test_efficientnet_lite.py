# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from published_lite import published, radiograph

from monai_anomaly.networks.nets import EfficientNetLite
from monai_anomaly.networks.nets.efficientnet_lite import SamePadConv2d
from monai_anomaly.networks.pretrained import efficientnet_lite_file, load_efficientnet_lite

COUNTS = {0: (4_652_008, 16), 1: (5_416_680, 21), 2: (6_092_072, 21)}


@pytest.mark.parametrize("scale", COUNTS)
def test_gives_the_logits_of_the_published_network_on_a_radiograph(scale: int) -> None:
    network = EfficientNetLite(scale).eval()
    load_efficientnet_lite(network, efficientnet_lite_file(scale))
    image = ((radiograph(131, 96) - 127) / 128).expand(-1, 3, -1, -1)  # an odd and an even size
    with torch.no_grad():
        torch.testing.assert_close(network(image), published(scale)(image), rtol=0, atol=1e-5)
    assert (sum(parameter.numel() for parameter in network.parameters()), len(network.blocks)) == COUNTS[scale]


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("size", [7, 8])
def test_pads_as_tensorflow_does(kernel: int, stride: int, size: int) -> None:
    """The definition: ceil(n / s) outputs, and of the padding that this takes the smaller half first."""
    torch.manual_seed(0)
    layer = SamePadConv2d(1, 1, kernel, stride)
    image = torch.randn(1, 1, size, size)
    count = -(-size // stride)
    total = max((count - 1) * stride + kernel - size, 0)
    padded = torch.zeros(size + total, size + total)
    padded[total // 2 : total // 2 + size, total // 2 : total // 2 + size] = image[0, 0]
    expected = torch.zeros(count, count)
    for row in range(count):
        for column in range(count):
            window = padded[row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            expected[row, column] = (window * layer.weight[0, 0]).sum()
    torch.testing.assert_close(layer(image)[0, 0].detach(), expected.detach())


def test_a_size_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be one of 0, 1, 2, got 5"):
        EfficientNetLite(5)


def test_weights_of_another_size_are_refused_whole() -> None:
    network = EfficientNetLite(0)
    before = network.stem.conv.weight.clone()
    with pytest.raises(RuntimeError, match="do not fit EfficientNetLite"):
        network.load_state_dict(EfficientNetLite(1).state_dict())
    assert torch.equal(network.stem.conv.weight, before)
