# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import resnet18
from torch import Tensor, nn

from monai_anomaly.networks.blocks import read_layers

LAYERS = ["layer2", "bn1", "layer1.0.bn2", "act", "layer1"]


def _resnet(dims: int) -> nn.Module:
    torch.manual_seed(0)
    return resnet18(spatial_dims=dims, n_input_channels=1, shortcut_type="B", feed_forward=False).eval()


def _by_hooks(network: nn.Module, layers: list[str], image: Tensor) -> list[Tensor]:
    """What the layers return at the moment they return it."""
    found: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> None:
        found[layer] = output.clone()

    handles = [
        network.get_submodule(layer).register_forward_hook(lambda _m, _i, output, layer=layer: keep(layer, output))
        for layer in layers
    ]
    network(image)
    for handle in handles:
        handle.remove()
    return [found[layer] for layer in layers]


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_reads_what_hooks_read_and_keeps_no_more(dims: int) -> None:
    network = _resnet(dims)
    image = torch.randn(2, 1, *[16] * dims)
    expected = _by_hooks(network, LAYERS, image)
    part = read_layers(network, LAYERS)
    for _ in range(2):
        for read, value in zip(part(image), expected, strict=True):
            assert torch.equal(read, value)
    kept, own = part.state_dict(), network.state_dict()
    assert set(kept) == {name for name in own if name.startswith(("conv1", "bn1", "layer1", "layer2"))}
    assert all(kept[name].data_ptr() == own[name].data_ptr() for name in kept)
    assert all(torch.equal(read, value) for read, value in zip(copy.deepcopy(part)(image), expected, strict=True))


class _Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.unused = nn.Conv2d(1, 1, 1)
        self.pair = _Pair()

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image) if image.mean() > 0 else image


class _Pair(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image, image


class _Straight(_Deciding):
    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.pair(image)[0])


def test_layers_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \['nothing'\]: take some of conv, unused, pair"):
        read_layers(_Straight(), ["conv", "nothing"])
    with pytest.raises(ValueError, match="got none"):
        read_layers(_Straight(), [])
    with pytest.raises(ValueError, match="'unused' of _Straight is not run"):
        read_layers(_Straight(), ["unused"])
    with pytest.raises(ValueError, match="'pair' of _Straight is not run, or returns more"):
        read_layers(_Straight(), ["pair"])
    with pytest.raises(ValueError, match="decides by values"):
        read_layers(_Deciding(), ["conv"])
