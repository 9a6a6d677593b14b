# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from monai_anomaly.bundle.fitted_copy import fit_copy

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def test_what_is_trained_or_has_weights_is_left_alone(tmp_path: Path) -> None:
    fit_copy(BUNDLES / "ae", (1, 32, 32), tmp_path / "ae")
    bundle = shutil.copytree(BUNDLES / "padim", tmp_path / "padim")
    (bundle / "models" / "model.pt").touch()
    fit_copy(bundle, (1, 32, 32), tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["padim"]


def test_the_copy_has_weights_that_say_something(tmp_path: Path) -> None:
    bundle = shutil.copytree(BUNDLES / "padim", tmp_path / "bundle")
    train = json.loads((bundle / "configs/train.json").read_text())
    small = {"grid": 4, "num_features": 8}
    (bundle / "configs/train.json").write_text(json.dumps(train | small))
    copy = tmp_path / "copies" / "padim"
    fit_copy(bundle, (1, 64, 64), copy)
    parser = ConfigParser()
    parser.read_config(str(copy / "configs/inference.json"))
    parser.update({"spatial_size": [64, 64], **small})
    network = parser.get_parsed_content("network_def").eval()
    image = torch.rand(2, 1, 64, 64)
    assert bool(network(image).isnan().all())
    network.load_state_dict(torch.load(copy / "models/model.pt", weights_only=True))
    assert bool(torch.isfinite(network(image)).all()) and float(network(image).std()) > 0
    assert not (bundle / "models" / "model.pt").exists()


def test_what_is_trained_on_features_gets_random_weights_and_those_of_the_backbone(tmp_path: Path) -> None:
    copy = tmp_path / "fae"
    fit_copy(BUNDLES / "fae", (1, 64, 64), copy)
    weights = torch.load(copy / "models/model.pt", weights_only=True)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    assert float(weights["network.extractor.network.stem.conv.weight"].std()) > 0
    gathered = weights["network.standardize.0.running_var"]
    assert bool((gathered != 1).all()), "and statistics of the random images"
