# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .backbones import backbone_names, load_backbone
from .efficientnet_lite_weights import efficientnet_lite_file, load_efficientnet_lite
from .imagenet_resnet import imagenet_resnet
from .mae_backbone import MaskedEncoderMaps
from .mae_layout import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NIH_MEAN,
    NIH_STD,
    convert_mae_state,
    mae_arguments,
    mae_key_map,
)
from .mae_start import start_from
from .medicalnet import medicalnet_resnet
from .timm_backbone import TimmFeatureMaps

__all__ = [
    "imagenet_resnet",
    "MaskedEncoderMaps",
    "medicalnet_resnet",
    "TimmFeatureMaps",
    "backbone_names",
    "load_backbone",
    "efficientnet_lite_file",
    "load_efficientnet_lite",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NIH_MEAN",
    "NIH_STD",
    "convert_mae_state",
    "mae_arguments",
    "mae_key_map",
    "start_from",
]
