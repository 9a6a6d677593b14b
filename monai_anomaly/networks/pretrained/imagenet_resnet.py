# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 and WideResNet-50-2 with weights in torchvision's layout."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from monai.networks.nets import ResNet

from ...utils import file_sha256
from ..nets.wide_bottleneck import WideBottleneck
from .backbone import Backbone, Layers, Weights, fill_weights, stage_names
from .mae_layout import IMAGENET_MEAN, IMAGENET_STD
from .weight_file import read_tensors, take_weights, without_weights

# blocks, and name of the file of torchvision's IMAGENET1K_V1, which ends in the beginning of its SHA-256
_NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "resnet18": ({"block": "basic", "layers": [2, 2, 2, 2]}, "resnet18-f37072fd.pth"),
    "wide_resnet50_2": ({"block": WideBottleneck, "layers": [3, 4, 6, 3]}, "wide_resnet50_2-95faca4d.pth"),
}


def imagenet_resnet(name: str) -> ResNet:
    """MONAI's ``ResNet`` with the settings of torchvision's network of that name, in 2D, without its classifier.

    Its weights are NaN until they are loaded. Its modules have torchvision's names; the output of the stem, 64 channels
    at a quarter of the size, is ``maxpool``.

    Args:
        name: ``"resnet18"`` or ``"wide_resnet50_2"``.
    """
    make = partial(
        ResNet,
        **_NETWORKS[name][0],
        block_inplanes=[64, 128, 256, 512],
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    )
    return without_weights(make)


def imagenet_resnet_backbone(name: str, layers: Layers, weights: Weights) -> Backbone:
    """One of these networks as a backbone; see :func:`load_backbone`.

    Args:
        name: ``"resnet18"`` or ``"wide_resnet50_2"``.
        layers: 0 for the stem, 1 to 4 for the stages; None: 1, 2 and 3, as PaDiM, CFLOW-AD and reverse distillation.
        weights: path; None: the file that torchvision left in the cache of PyTorch.

    Raises:
        ValueError: when the weights are not there or do not fit.
    """
    network = imagenet_resnet(name)

    def load(path: Weights) -> None:
        take_weights(network, read_tensors(str(path)), str, str(path), passed_over=("fc.",))

    path = fill_weights(weights, lambda: _cached_file(name), load)
    return Backbone(network, stage_names(layers), IMAGENET_MEAN, IMAGENET_STD, path)


def _cached_file(name: str) -> Path:
    """Where PyTorch keeps what torchvision has downloaded (``TORCH_HOME``, else the cache of the user)."""
    file = _NETWORKS[name][1]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("TORCH_HOME") or Path(cache, "torch"), "hub", "checkpoints", file)
    if not path.is_file():
        raise ValueError(
            f"the weights of {name} were not found as {path}, and nothing is downloaded here: give the path of the "
            f"file {file}, or fetch it once with torchvision: "
            f"python -c \"import torchvision; torchvision.models.{name}(weights='IMAGENET1K_V1')\""
        )
    digest = file_sha256(path)
    if not path.stem.endswith(digest[:8]):
        raise ValueError(f"{path} has the SHA-256 {digest}, which its name contradicts: delete it and fetch it again")
    return path
