# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What reads features of a pre-trained network says nothing without weights: a copy of its bundle has some."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from ..utils import save_weights
from .lint.config_tree import MISSING, load_strict_json, look_up

_FITTING = "monai_anomaly.engines.FitTrainer"
_IMAGES = 4


def fit_copy(root: Path, shape: tuple[int, ...], copy: Path) -> None:
    """Copy a bundle, with weights, if it has none and reads features of a pre-trained network; else do nothing.

    The pre-trained network has its own weights, what is trained random ones, and what is fitted is so to random images;
    statistics that a training gathers are of these, too.

    Args:
        root: folder of the bundle.
        shape: of one image, (C, *S).
        copy: folder of the copy; must not exist.

    Raises:
        ValueError: when the pre-trained network that it reads features from is not installed.
    """
    train = root / "configs" / "train.json"
    config = load_strict_json(train)
    if (root / "models" / "model.pt").is_file() or look_up(config, "backbone") is MISSING:
        return
    parser = ConfigParser()
    parser.read_config(str(train))
    for name, value in {"bundle_root": str(root), "in_channels": shape[0], "spatial_size": list(shape[1:])}.items():
        parser[name] = value
    network = parser.get_parsed_content("network_def")
    images = torch.rand(_IMAGES, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if look_up(config, "train#trainer#_target_") == _FITTING:
        network.eval().fit_batch(images)
        network.finish()
    else:
        with torch.no_grad():
            network.network.train()(images)  # what is trained, without the rule that makes a map of it
        if hasattr(network.network, "begin_stage"):
            network.network.begin_stage(1)  # so that the map is the head's
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("eval", "runs"))
    save_weights(network.state_dict(), copy / "models" / "model.pt", {})
