# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What is fitted says nothing before it was: a copy of its bundle with weights stands in, where a bundle has none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from ..utils import save_weights
from .lint.config_tree import load_strict_json, look_up

_FITTING = "monai_anomaly.engines.FitTrainer"
_IMAGES = 4


def fit_copy(root: Path, shape: tuple[int, ...], copy: Path) -> None:
    """Fit a copy of a bundle to random images, if it is one that is fitted and has no weights; else do nothing.

    Args:
        root: folder of the bundle.
        shape: of one image, (C, *S).
        copy: folder of the copy; must not exist.

    Raises:
        ValueError: when the pre-trained network that it reads features from is not installed.
    """
    train = root / "configs" / "train.json"
    if (root / "models" / "model.pt").is_file() or not _is_fitted(load_strict_json(train)):
        return
    parser = ConfigParser()
    parser.read_config(str(train))
    for name, value in {"bundle_root": str(root), "in_channels": shape[0], "spatial_size": list(shape[1:])}.items():
        parser[name] = value
    network = parser.get_parsed_content("network_def").eval()
    network.fit_batch(torch.rand(_IMAGES, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    network.finish()
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("eval", "runs"))
    save_weights(network.state_dict(), copy / "models" / "model.pt", {})


def _is_fitted(config: Any) -> bool:
    return look_up(config, "train#trainer#_target_") == _FITTING
