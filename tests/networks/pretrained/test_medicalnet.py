# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from functional_resnet import random_state, stages
from monai.networks.nets.resnet import resnet_params

from monai_anomaly.networks.pretrained import load_backbone
from monai_anomaly.networks.pretrained.medicalnet import medicalnet_names

LAYOUTS: dict[str, dict[str, Any]] = {
    "medicalnet_resnet10": {"kind": "basic", "blocks": [1, 1, 1, 1], "shortcut": True},
    "medicalnet_resnet18": {"kind": "basic", "blocks": [2, 2, 2, 2], "shortcut": False},
    "medicalnet_resnet50": {"kind": "bottleneck", "blocks": [1, 2, 1, 1], "shortcut": True},
}


@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_gives_the_stages_of_the_published_definition(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, depth, *others = resnet_params["resnet50"]
    assert depth == [3, 4, 6, 3]
    monkeypatch.setitem(resnet_params, "resnet50", ("bottleneck", [1, 2, 1, 1], *others))  # as it is, but quicker
    state, path = random_state(**LAYOUTS[name], channels=1, dims=3, wide=1), tmp_path / "weights.pth"
    # as published: wrapped by parallel training, and with the head that segments
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "epoch": 1}, path)
    extractor = load_backbone(name, [0, 1, 2, 3, 4], weights=path, spatial_dims=3)
    image = torch.rand(1, 1, 16, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = stages(state, image, (1, 2, 1, 1), (1, 1, 2, 4))
    for read, value in zip(extractor(image), expected, strict=True):
        torch.testing.assert_close(read, value, rtol=1e-5, atol=1e-5 * float(value.max()))
    assert extractor.source["name"] == name and len(extractor.source["sha256"]) == 64


def test_weights_must_be_given_and_images_be_volumes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the path of its weights.* resnet_34_23dataset.pth"):
        load_backbone("medicalnet_resnet34", spatial_dims=3)
    with pytest.raises(ValueError, match="3 spatial axes, got spatial_dims=2"):
        load_backbone("medicalnet_resnet10")
    with pytest.raises(ValueError, match=r"in_channels must be 1, which is repeated, or 1, got 3"):
        load_backbone("medicalnet_resnet10", in_channels=3, weights="from_checkpoint", spatial_dims=3)
    assert len(medicalnet_names()) == 7
