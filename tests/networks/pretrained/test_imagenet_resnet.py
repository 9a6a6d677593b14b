# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from functional_resnet import random_state, stages

from monai_anomaly.networks.pretrained import imagenet_resnet, load_backbone

LAYOUTS: dict[str, dict[str, Any]] = {
    "resnet18": {"kind": "basic", "blocks": [2, 2, 2, 2], "wide": 1},
    "wide_resnet50_2": {"kind": "bottleneck", "blocks": [3, 4, 6, 3], "wide": 2},
}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def _state(name: str) -> dict[str, torch.Tensor]:
    state = random_state(**LAYOUTS[name], channels=3, dims=2, shortcut=True)
    return state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_gives_the_stages_of_torchvisions_definition(name: str, tmp_path: Path) -> None:
    state, path = _state(name), tmp_path / "weights.pth"
    torch.save(state, path)
    extractor = load_backbone(name, [0, 1, 2, 3, 4], weights=path)
    image = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scaled = ((image + 1) / 2).expand(-1, 3, -1, -1) - MEAN.reshape(3, 1, 1)
    expected = stages(state, scaled / STD.reshape(3, 1, 1), (1, 2, 2, 2), (1, 1, 1, 1))
    for read, value in zip(extractor(image), expected, strict=True):
        torch.testing.assert_close(read, value, rtol=1e-5, atol=1e-5 * float(value.max()))
    channels = tuple(value.shape[1] for value in expected)
    assert extractor.num_channels == channels
    assert load_backbone(name, weights="from_checkpoint").num_channels == channels[1:4]


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_689_512), ("wide_resnet50_2", 68_883_240)])
def test_has_as_many_parameters_as_published(name: str, count: int) -> None:
    network = imagenet_resnet(name)
    classifier = 1000 * network.layer4[-1].bn2.num_features if name == "resnet18" else 1000 * 2048
    assert sum(parameter.numel() for parameter in network.parameters()) + classifier + 1000 == count


def test_weights_are_looked_for_where_torchvision_leaves_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"resnet18-f37072fd.pth, and nothing is downloaded.*models.resnet18\("):
        load_backbone("resnet18")
    planted = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"half of it")
    with pytest.raises(ValueError, match="which its name contradicts: delete it"):
        load_backbone("resnet18")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(_state("resnet18"), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth lack layer1.0.conv3.weight, .* another network than ResNet"):
        load_backbone("wide_resnet50_2", weights=tmp_path / "weights.pth")
    assert load_backbone("resnet18", weights="from_checkpoint")(torch.zeros(1, 1, 32, 32))[0].isnan().all()
