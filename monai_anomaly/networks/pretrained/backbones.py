# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every pre-trained network whose features can be read, by one name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from ...utils import file_sha256
from ..blocks.feature_extractor import FeatureExtractor
from ..nets.efficientnet_lite import EfficientNetLite
from .efficientnet_lite_weights import (
    EFFICIENTNET_LITE_MEAN,
    EFFICIENTNET_LITE_STD,
    efficientnet_lite_file,
    load_efficientnet_lite,
)
from .weight_file import forget_weights

FROM_CHECKPOINT = "from_checkpoint"

Weights = str | os.PathLike[str] | None
Layers = Sequence[int | str] | None


def load_backbone(
    name: str = "efficientnet_lite0",
    layers: Layers = None,
    in_channels: int = 1,
    weights: Weights = None,
    spatial_dims: int = 2,
) -> FeatureExtractor:
    """Load a pre-trained network to read features from. Nothing is downloaded.

    Args:
        name: of the network, see :func:`backbone_names`.
        layers: to read, by number or by name. None (default): those of the family that serve best, as far as is known.
            Numbers of ``efficientnet_lite*`` count its inverted residual blocks from 0, default (4, 7, 10).
        in_channels: channels of an image: 1 (default), which is repeated, or as many as the network has.
        weights: path of a file of weights. None (default): what is installed with the family's package, or lies in its
            cache. ``"from_checkpoint"``: none, because a checkpoint with all weights is loaded next; until then all
            features are NaN.
        spatial_dims: of the images, 2 (default) or 3.

    Returns:
        the feature extractor, whose ``source`` has the name and the SHA-256 of the weights.

    Raises:
        ValueError: when there is no such network or layer, it is of other images, or its weights are missing or do not
            fit; the message says what to do.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", weights="from_checkpoint")
        >>> [tuple(features.shape) for features in extractor(torch.zeros(1, 1, 64, 64))]
        [(1, 40, 8, 8), (1, 80, 4, 4), (1, 112, 4, 4)]
    """
    if name not in _FAMILIES:
        raise ValueError(f"there is no backbone {name!r}: take one of {', '.join(backbone_names())}")
    load, dims = _FAMILIES[name]
    if spatial_dims not in dims:
        raise ValueError(
            f"the backbone {name!r} is for images with {' or '.join(map(str, dims))} spatial axes, got spatial_dims="
            f"{spatial_dims!r}" + (": score volumes slice by slice, or take a 3D backbone" if dims == (2,) else "")
        )
    return load(name, layers, in_channels, weights)


def backbone_names() -> list[str]:
    """Names that :func:`load_backbone` takes."""
    return list(_FAMILIES)


def _efficientnet_lite(name: str, layers: Layers, in_channels: int, weights: Weights, scale: int) -> FeatureExtractor:
    network = EfficientNetLite(scale)
    if weights == FROM_CHECKPOINT:
        forget_weights(network)
        path: Weights = None
    else:
        path = efficientnet_lite_file(scale) if weights is None else weights
        load_efficientnet_lite(network, path)
    names = _layer_names((4, 7, 10) if layers is None else layers, "blocks.{}")
    extractor = FeatureExtractor(network, names, EFFICIENTNET_LITE_MEAN, EFFICIENTNET_LITE_STD, in_channels)
    return _with_source(extractor, name, path)


def _layer_names(layers: Sequence[int | str], pattern: str) -> list[str]:
    return [pattern.format(layer) if isinstance(layer, int) else layer for layer in layers]


def _with_source(extractor: FeatureExtractor, name: str, path: Weights) -> FeatureExtractor:
    extractor.source = {"name": name, "sha256": "" if path is None else file_sha256(path)}
    return extractor


Loader = Callable[[str, Layers, int, Weights], FeatureExtractor]
_FAMILIES: dict[str, tuple[Loader, tuple[int, ...]]] = {
    f"efficientnet_lite{scale}": (partial(_efficientnet_lite, scale=scale), (2,)) for scale in (0, 1, 2)
}
