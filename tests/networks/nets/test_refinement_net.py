# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_anomaly.networks.nets import RefinementNet


def _trained(dims: int, **arguments: int) -> RefinementNet:
    """A network with statistics of its own, in evaluation mode."""
    torch.manual_seed(0)
    network = RefinementNet(dims, **arguments)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.rand(value.shape))
    return network.eval()


def _slow(network: RefinementNet, maps: Tensor) -> Tensor:
    """The three layers, written out, with the weights in the order in which the network holds them."""
    w1, b1, g1, s1, m1, v1, _, w2, b2, g2, s2, m2, v2, _, w3, b3 = network.state_dict().values()
    convolve = F.conv2d if maps.ndim == 4 else F.conv3d
    shape = [1, -1] + [1] * (maps.ndim - 2)
    x = convolve(maps, w1, b1, padding=1)
    x = ((x - m1.reshape(shape)) / (v1.reshape(shape) + 1e-5).sqrt() * g1.reshape(shape) + s1.reshape(shape)).clamp(0)
    x = convolve(x, w2, b2, padding=1)
    x = ((x - m2.reshape(shape)) / (v2.reshape(shape) + 1e-5).sqrt() * g2.reshape(shape) + s2.reshape(shape)).clamp(0)
    return convolve(x, w3, b3, padding=1)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_equal_to_the_layers_written_out_in_value_and_gradient(dims: int, channels: int) -> None:
    network = _trained(dims, in_channels=channels, hidden_channels=5)
    maps = torch.rand(2, channels, 7, *[6] * (dims - 1))
    results = []
    for function in (network, lambda x: _slow(network, x)):
        x = maps.clone().requires_grad_()
        value = function(x)
        value.square().sum().backward()
        results.append((value.detach(), x.grad))
    assert results[0][0].shape == (2, 2, *maps.shape[2:])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_as_many_parameters_as_the_published_one() -> None:
    assert sum(p.numel() for p in RefinementNet(2).parameters()) == 152_834  # 0.153 M
    assert RefinementNet(3, 1)[0].conv.weight.shape == (128, 1, 3, 3, 3)  # type: ignore[union-attr]


def test_torchscript() -> None:
    network, maps = _trained(2, hidden_channels=4), torch.rand(2, 2, 8, 8)
    torch.testing.assert_close(torch.jit.script(network)(maps), network(maps))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "spatial_dims must be 2 or 3, got 1"),
        ((2, 0), "must be positive, got 0 and 128"),
        ((2, 2, -1), "got 2 and -1"),
    ],
)
def test_bad_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RefinementNet(*arguments)
