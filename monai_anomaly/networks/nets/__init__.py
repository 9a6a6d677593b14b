# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .dense_autoencoder import FEATURE_LAYERS, DenseAutoencoder
from .encoder_classifier import ConvolutionalEncoder, EncoderClassifier
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
from .masked_autoencoder import MaskedAutoencoder
from .refinement_net import RefinementNet
from .unet_restorer import RestorerOutput, UNetRestorer

__all__ = [
    "ConvolutionalEncoder",
    "DenseAutoencoder",
    "EncoderClassifier",
    "FEATURE_LAYERS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MaskedAutoencoder",
    "NIH_MEAN",
    "NIH_STD",
    "RefinementNet",
    "RestorerOutput",
    "UNetRestorer",
    "convert_mae_state",
    "mae_arguments",
    "mae_key_map",
    "start_from",
]
