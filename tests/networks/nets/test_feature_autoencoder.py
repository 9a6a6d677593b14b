# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from small_extractor import SmallExtractor
from torch import nn

from monai_anomaly.functional import to_grid
from monai_anomaly.networks.nets import FeatureAutoencoder


def test_parameters_are_those_of_the_paper() -> None:
    network = FeatureAutoencoder(SmallExtractor([64, 64, 128], [4, 4, 8]), [32, 32], standardize=False)
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert learned == 10_285_048  # 10.29 M in the study of Lagogiannis et al.
    kinds = [type(part).__name__ for part in network.encoder]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU", "Dropout2d"] * 4 + ["Conv2d"]
    assert [type(part).__name__ for part in network.decoder] == [
        *["ConvTranspose2d", "BatchNorm2d", "LeakyReLU", "Dropout2d"] * 4,
        "Conv2d",
    ]
    sizes = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Conv2d)][3:]
    assert sizes[:2] == [(100, 256, 5, 5), (150, 100, 5, 5)] and sizes[-1] == (256, 256, 1, 1)


@pytest.mark.parametrize(("size", "grid"), [((16, 24), (8, 12)), ((8, 8, 8), (4, 8, 4))])
def test_features_on_the_grid_come_out_as_they_went_in(size: tuple[int, ...], grid: tuple[int, ...]) -> None:
    extractor = SmallExtractor([3, 4], [1, 2], len(size))
    network = FeatureAutoencoder(extractor, grid, channels=[6, 8], standardize=False).eval()
    image = torch.rand(2, 1, *size)
    output = network(image)
    assert [tuple(features.shape) for features in output.prediction] == [(2, 7, *grid)]
    torch.testing.assert_close(output.target[0], to_grid(extractor(image), grid))
    assert not output.target[0].requires_grad and output.prediction[0].requires_grad
    deepest = network.encoder(output.target[0])
    assert tuple(deepest.shape[1:]) == (8, *(places // 4 for places in grid))


def test_channels_are_standardized_before_they_come_to_the_grid() -> None:
    extractor = SmallExtractor([3, 4], [1, 2])
    network = FeatureAutoencoder(extractor, [8, 8], channels=[4]).train()
    image = 5 + 3 * torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network(image)
    maps = [(f - f.mean((0, 2, 3), keepdim=True)) / f.var((0, 2, 3), keepdim=True).sqrt() for f in extractor(image)]
    torch.testing.assert_close(network.eval()(image).target[0], to_grid(maps, [8, 8]), rtol=1e-3, atol=1e-3)
    fresh = FeatureAutoencoder(SmallExtractor([3, 4], [1, 2]), [8, 8], channels=[4]).eval()
    fresh.load_state_dict(network.state_dict())
    torch.testing.assert_close(fresh(image).prediction[0], network(image).prediction[0])


@pytest.mark.parametrize(("grid", "channels"), [((6, 8), (4, 4)), ((8, 8), ())])
def test_grids_that_cannot_be_halved_are_refused(grid: tuple[int, ...], channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="grid must be divisible by"):
        FeatureAutoencoder(SmallExtractor([2], [1]), grid, channels)
