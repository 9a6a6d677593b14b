# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every pre-trained network whose features can be read, by one name."""

from __future__ import annotations

from collections.abc import Callable

from ...utils import file_sha256
from ..blocks.feature_extractor import FeatureExtractor
from .backbone import Backbone, Layers, Weights
from .efficientnet_lite_weights import efficientnet_lite_backbone
from .imagenet_resnet import imagenet_resnet_backbone
from .mae_backbone import mae_backbone
from .medicalnet import medicalnet_backbone, medicalnet_names
from .timm_backbone import PREFIX, timm_backbone

Maker = Callable[[str, Layers, Weights], Backbone]


def load_backbone(
    name: str = "efficientnet_lite0",
    layers: Layers = None,
    in_channels: int = 1,
    weights: Weights = None,
    spatial_dims: int = 2,
    compat: str | None = None,
) -> FeatureExtractor:
    """Load a pre-trained network to read features from. Nothing is downloaded.

    Args:
        name: of the network, see :func:`backbone_names`.
        layers: to read, by number or by name. None (default): those of the family that serve best, as far as is known.
            Numbers of ``efficientnet_lite*`` count its inverted residual blocks from 0, default (4, 7, 10); of a ResNet
            0 is the stem and 1 to 4 are the stages, default (1, 2, 3); of ``mae`` and of transformers they count the
            blocks from 0, default the last; of other networks of timm the levels, default those at 1/4, 1/8 and 1/16.
        in_channels: channels of an image: 1 (default), which is repeated, or as many as the network has.
        weights: path of a file of weights. None (default): what is installed with the family's package, or lies in its
            cache; ``mae`` and ``medicalnet_*`` need a path. ``"from_checkpoint"``: none, because a checkpoint with all
            weights is loaded next; until then all features are NaN (not for ``mae``, whose file says how it is built).
        spatial_dims: of the images, 2 (default) or 3.
        compat: ``"upd"`` lets batch statistics adapt in a training, see :class:`FeatureExtractor`; default None.

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
    make, dims = _family(name)
    if spatial_dims not in dims:
        raise ValueError(
            f"the backbone {name!r} is for images with {' or '.join(map(str, dims))} spatial axes, got spatial_dims="
            f"{spatial_dims!r}" + (": score volumes slice by slice, or take a 3D backbone" if dims == (2,) else "")
        )
    backbone = make(name, layers, weights)
    extractor = FeatureExtractor(backbone.network, backbone.layers, backbone.mean, backbone.std, in_channels, compat)
    axes = extractor.mean.ndim - 1
    if axes != spatial_dims:
        raise ValueError(f"weights {weights} are for images with {axes} spatial axes, got spatial_dims={spatial_dims}")
    extractor.source = {"name": name, "sha256": "" if backbone.path is None else file_sha256(backbone.path)}
    return extractor


def backbone_names() -> list[str]:
    """Names that :func:`load_backbone` takes; ``timm/NAME`` stands for every network of timm."""
    return [*_FAMILIES, f"{PREFIX}NAME"]


def _family(name: str) -> tuple[Maker, tuple[int, ...]]:
    """What makes a backbone of that name, and for how many spatial axes."""
    if name.startswith(PREFIX):
        return timm_backbone, (2,)
    if name not in _FAMILIES:
        raise ValueError(f"there is no backbone {name!r}: take one of {', '.join(backbone_names())}")
    return _FAMILIES[name]


_FAMILIES: dict[str, tuple[Maker, tuple[int, ...]]] = {
    **{f"efficientnet_lite{scale}": (efficientnet_lite_backbone, (2,)) for scale in (0, 1, 2)},
    "resnet18": (imagenet_resnet_backbone, (2,)),
    "wide_resnet50_2": (imagenet_resnet_backbone, (2,)),
    "mae": (mae_backbone, (2, 3)),
    **dict.fromkeys(medicalnet_names(), (medicalnet_backbone, (3,))),
}
