# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_anomaly.networks.blocks import FeatureExtractor
from monai_anomaly.networks.nets import MaskedAutoencoder
from monai_anomaly.networks.pretrained import MaskedEncoderMaps, load_backbone
from monai_anomaly.utils import save_weights

SETTINGS: dict[str, Any] = {
    "patch_size": 4,
    "hidden_size": 24,
    "num_layers": 3,
    "num_heads": 3,
    "decoder_hidden_size": 24,
    "decoder_num_layers": 1,
    "decoder_num_heads": 3,
}


def _network(dims: int, **others: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(spatial_dims=dims, spatial_size=(8, 12, 16)[:dims], **SETTINGS, **others).eval()


def _trained(path: Path, dims: int, prefix: str = "network.", **others: Any) -> MaskedAutoencoder:
    """Write what the bundle writes: weights under the name that the network has in its map, and the settings."""
    network = _network(dims, **others)
    state = {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    recorded = SETTINGS | others | {"spatial_size": list(network.spatial_size), "mask_ratio": 0.75}
    save_weights(state, path, recorded)
    return network


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("prefix", ["", "network."])
@torch.no_grad()
def test_gives_the_tokens_of_each_block_on_the_grid_of_patches(dims: int, prefix: str, tmp_path: Path) -> None:
    network = _trained(tmp_path / "model.pt", dims, prefix)
    image = torch.rand(2, 1, *network.spatial_size) * 2 - 1
    extractor = load_backbone("mae", [2, 0], weights=tmp_path / "model.pt", spatial_dims=dims)
    tokens, expected = network.embed(image), {}
    for number, block in enumerate(network.vit.blocks[:3]):
        tokens = expected[number] = block(tokens)
    expected[2] = network.tokens(image)  # after the last normalization
    for features, number in zip(extractor(image), (2, 0), strict=True):
        assert features.shape == (2, 24, *network.grid)
        for place, token in enumerate(expected[number][:, 1:].unbind(1)):
            found = features.flatten(2)[..., place]
            torch.testing.assert_close(found, token, rtol=0, atol=1e-5)
    (last,) = load_backbone("mae", weights=tmp_path / "model.pt", spatial_dims=dims)(image)
    torch.testing.assert_close(last, extractor(image)[0])
    assert not [name for name in extractor.state_dict() if "decoder" in name or "mask_token" in name]


def test_keeps_the_scale_that_the_network_was_trained_with(tmp_path: Path) -> None:
    others = {"network_channels": 3, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    network = _trained(tmp_path / "model.pt", 2, **others)
    image = torch.rand(1, 1, 8, 12) * 2 - 1
    extractor = load_backbone("mae", weights=tmp_path / "model.pt")
    torch.testing.assert_close(extractor(image)[0].flatten(2).mT, network.tokens(image)[:, 1:], rtol=0, atol=1e-5)


def test_can_be_copied_traced_and_exported() -> None:
    extractor = FeatureExtractor(MaskedEncoderMaps(_network(2), [1]), None, [0.5], [0.5])
    image = torch.rand(2, 1, 8, 12)
    expected = extractor(image)[0]
    for form in (
        copy.deepcopy(extractor),
        torch.jit.trace(extractor, image, check_trace=False),
        torch.export.export(extractor, (image,), strict=False).module(),
    ):
        torch.testing.assert_close(form(image)[0], expected)
    assert extractor.num_channels == (24,)


@pytest.mark.parametrize("blocks", [[], [3], [-1]])
def test_blocks_that_there_are_not_are_refused(blocks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 3\)"):
        MaskedEncoderMaps(_network(2), blocks)


def test_files_that_do_not_say_enough_are_refused(tmp_path: Path) -> None:
    for weights in (None, "from_checkpoint"):
        with pytest.raises(ValueError, match="'mae' needs the path of the model.pt"):
            load_backbone("mae", weights=weights)
    path = tmp_path / "model.pt"
    with pytest.raises(ValueError, match="model.pt not found: train the bundle mae_pretrain"):
        load_backbone("mae", weights=path)
    torch.save(nn.Linear(1, 1).state_dict(), path)
    with pytest.raises(ValueError, match="does not say its spatial_size, patch_size"):
        load_backbone("mae", weights=path)
    save_weights(nn.Linear(1, 1).state_dict(), path, SETTINGS | {"spatial_size": [8, 12]})
    with pytest.raises(ValueError, match="does not fit the settings recorded with it"):
        load_backbone("mae", weights=path)
    _trained(path, 3)
    with pytest.raises(ValueError, match="model.pt are for images with 3 spatial axes, got spatial_dims=2"):
        load_backbone("mae", weights=path)
    with pytest.raises(ValueError, match="are numbers of transformer blocks, got"):
        load_backbone("mae", ["blocks.1"], weights=path, spatial_dims=3)
