# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_anomaly.bundle.capture import capture, scripted
from monai_anomaly.networks.blocks import FeatureExtractor

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def _network(dims: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(conv(3, 4, 3, 2, 1), norm(4), nn.ReLU(True), nn.Dropout(0.5), conv(4, 6, 3, 2, 1), norm(6))


def _extractor(dims: int = 2, layers: Any = ("2", "5"), **arguments: Any) -> FeatureExtractor:
    return FeatureExtractor(_network(dims), layers, MEAN, STD, **arguments)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_scales_repeats_and_reads(dims: int, in_channels: int) -> None:
    extractor, network = _extractor(dims, in_channels=in_channels), _network(dims).eval()
    image = torch.rand(2, in_channels, *[8] * dims) * 2 - 1
    scaled = torch.empty(2, 3, *[8] * dims)
    for channel in range(3):  # in [0, 1], less the mean, by the deviation
        gray = (image[:, channel % in_channels] + 1) / 2
        scaled[:, channel] = (gray - MEAN[channel]) / STD[channel]
    maps = extractor(image)
    torch.testing.assert_close(maps[0], network[:3](scaled))
    torch.testing.assert_close(maps[1], network(scaled))
    assert extractor.num_channels == (4, 6) == tuple(features.shape[1] for features in maps)


def test_a_network_may_return_its_maps_itself() -> None:
    class Own(nn.Module):
        num_channels = (3, 5)

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)

        def forward(self, image: Tensor) -> list[Tensor]:
            return [image, self.conv(image)] if image.shape[0] else []

    extractor = FeatureExtractor(Own(), None, [0.5] * 3, [0.5] * 3)
    assert extractor.num_channels == (3, 5)
    image = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(extractor(image)[0], image.expand(-1, 3, -1, -1))


def _tease(extractor: FeatureExtractor) -> None:
    """Ask everything in it to learn, in every way there is."""
    whole = nn.Sequential(extractor)
    whole.train()
    extractor.network.train()
    for module in extractor.modules():
        module.train()
    for module in extractor.network.modules():
        module.training = True
    whole.requires_grad_(True)


def test_nothing_ever_learns() -> None:
    extractor = _extractor()
    image = torch.rand(4, 1, 8, 8)
    before, expected = copy.deepcopy(extractor.state_dict()), extractor(image)
    _tease(extractor)
    maps = extractor(image)
    assert not any(features.requires_grad for features in maps)
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in extractor.state_dict().items())


def test_batch_statistics_adapt_for_upd_alone_and_only_while_training() -> None:
    image = torch.rand(4, 1, 8, 8)
    extractor = _extractor(compat="upd").train()
    before, weight = extractor.network.get_buffer("1.running_mean").clone(), extractor.network.get_parameter("0.weight")
    maps = extractor(image)
    after = extractor.network.get_buffer("1.running_mean").clone()
    scaled = (image.expand(-1, 3, -1, -1) + 1) / 2 - torch.tensor(MEAN)[:, None, None]
    mean = _network()[0](scaled / torch.tensor(STD)[:, None, None]).mean((0, 2, 3))
    torch.testing.assert_close(after, 0.9 * before + 0.1 * mean)
    assert not maps[1].requires_grad and not weight.requires_grad
    extractor.eval()(image)
    assert torch.equal(extractor.network.get_buffer("1.running_mean"), after)
    assert not extractor.network.training and not extractor.network.get_submodule("3").training


def test_a_gradient_reaches_the_image() -> None:
    image = torch.rand(1, 1, 8, 8, requires_grad=True)
    _extractor()(image)[1].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_weights_travel_in_a_checkpoint() -> None:
    extractor = _extractor()
    file = io.BytesIO()
    torch.save(extractor.state_dict(), file)
    file.seek(0)
    other = FeatureExtractor(_network(), ("2", "5"), [0.1] * 3, [0.1] * 3)
    nn.init.zeros_(other.network.get_parameter("0.weight"))
    other.load_state_dict(torch.load(file, weights_only=True))
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(other(image)[1], extractor(image)[1])


class _Map(nn.Module):
    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, image: Tensor) -> Tensor:
        return self.extractor(image)[1].mean(1, keepdim=True)


@torch.no_grad()
def test_is_traced_captured_and_exported() -> None:
    network = _Map(_extractor()).eval()
    image, other = torch.rand(2, 1, 8, 8), torch.rand(3, 1, 8, 8)
    batch = ({0: torch.export.Dim("batch", min=1)},)
    for form in (
        torch.jit.trace(network, image),
        scripted(capture(network, image)),
        torch.export.export(network, (image,), dynamic_shapes=batch, strict=False).module(),
    ):
        torch.testing.assert_close(form(other), network(other))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 2}, "works on 3 channels, so in_channels must be 1, which is repeated, or 3, got 2: choose"),
        ({"compat": "padim"}, "compat must be None or 'upd'"),
        ({"layers": ["9"]}, r"got \['9'\]"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _extractor(**arguments)


@pytest.mark.parametrize(("mean", "std"), [([], []), ([0.5], [0.5, 0.5]), ([0.5], [0.0]), ([float("nan")], [1.0])])
def test_scales_that_are_none_are_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="one finite number for each network channel"):
        FeatureExtractor(nn.Sequential(nn.Conv2d(len(mean) or 1, 1, 1)), ["0"], mean, std)


def test_metadata_of_images_does_not_travel_through_the_network() -> None:
    maps = _extractor()(MetaTensor(torch.zeros(1, 1, 8, 8)))
    assert not any(isinstance(features, MetaTensor) for features in maps)


def test_images_and_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes 1 channels, got images of shape \(1, 2, 8, 8\)"):
        _extractor()(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="has no convolution"):
        FeatureExtractor(nn.Sequential(nn.Linear(3, 3)), ["0"], MEAN, STD)
