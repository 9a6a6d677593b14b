# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.utils import optional_import

from monai_anomaly.networks.pretrained import load_backbone, timm_backbone

timm, installed = optional_import("timm")
needs_timm = pytest.mark.skipif(not installed, reason="timm is not installed (extra timm)")

# default layers, and how their sizes come from the image's
CASES: dict[str, tuple[list[int], list[int]]] = {
    "resnet18": ([1, 2, 3], [4, 8, 16]),
    "vit_tiny_patch16_224": ([11], [16]),
}


def _made(name: str, path: Path) -> Any:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    torch.save(network.state_dict(), path)
    return network


@needs_timm
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_gives_the_maps_of_timm(name: str, tmp_path: Path) -> None:
    network = _made(name, tmp_path / "weights.pt")
    layers, steps = CASES[name]
    extractor = load_backbone(f"timm/{name}", weights=tmp_path / "weights.pt")
    image = torch.rand(2, 1, 224, 224) * 2 - 1
    config = network.pretrained_cfg
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    scaled = ((image + 1) / 2 - mean) / std
    maps = extractor(image)
    if name.startswith("vit"):
        expected = [network.norm(network.blocks(network._pos_embed(network.patch_embed(scaled))))[:, 1:]]
        expected = [tokens.mT.unflatten(2, (14, 14)) for tokens in expected]
    else:
        features = network.maxpool(network.act1(network.bn1(network.conv1(scaled))))
        expected = []
        for stage in (network.layer1, network.layer2, network.layer3):
            expected.append(features := stage(features))
    for read, value, step in zip(maps, expected, steps, strict=True):
        torch.testing.assert_close(read, value, rtol=1e-5, atol=1e-5)
        assert read.shape[2:] == (224 // step, 224 // step)
    backwards = load_backbone(f"timm/{name}", layers[::-1], weights=tmp_path / "weights.pt")
    assert all(torch.equal(one, other) for one, other in zip(backwards(image), maps[::-1], strict=True))
    assert backwards.num_channels == extractor.num_channels[::-1]


@needs_timm
def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "weights.pt"
    _made("vit_tiny_patch16_224", path)
    with pytest.raises(ValueError, match="timm has no network 'nothing'"):
        load_backbone("timm/nothing")
    with pytest.raises(ValueError, match="do not fit 'timm/resnet18'"):
        load_backbone("timm/resnet18", weights=path)
    monkeypatch.setattr(timm_backbone, "_FILES", ())
    with pytest.raises(ValueError, match="not in the cache of timm, and nothing is downloaded here"):
        load_backbone("timm/resnet18")
    for layers in (["layer1"], [5], [1, 1], []):
        with pytest.raises(ValueError, match=r"different numbers in \[0, 5\)"):
            load_backbone("timm/resnet18", layers, weights="from_checkpoint")
    extractor = load_backbone("timm/vit_tiny_patch16_224", weights=path)
    assert extractor(torch.zeros(1, 1, 32, 48))[0].shape == (1, 192, 2, 3)  # any size of whole patches
    with pytest.raises(ValueError, match=r"patches of 16 pixels, got \(32, 40\): resize"):
        extractor(torch.zeros(1, 1, 32, 40))


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_backbone, "optional_import", lambda name: (None, False))
    with pytest.raises(ValueError, match=r"needs the package timm: pip install monai-anomaly\[timm\]"):
        load_backbone("timm/resnet18")
