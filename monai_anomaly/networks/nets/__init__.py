# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .denoising_student import DenoisingStudent
from .denoising_unet import DenoisingUNet, StandardizedConvolution
from .dense_autoencoder import FEATURE_LAYERS, DenseAutoencoder
from .efficientnet_lite import EfficientNetLite
from .encoder_classifier import ConvolutionalEncoder, EncoderClassifier
from .feature_autoencoder import FeatureAutoencoder
from .feature_flow import FeatureFlow
from .masked_autoencoder import MaskedAutoencoder
from .multiscale_distillation import MultiscaleDistillation
from .refinement_net import RefinementNet
from .reverse_distillation import ReverseDistillation
from .unet_restorer import RestorerOutput, UNetRestorer
from .wide_bottleneck import WideBottleneck
from .zero_shortcut import ZeroShortcut

__all__ = [
    "WideBottleneck",
    "ZeroShortcut",
    "EfficientNetLite",
    "ConvolutionalEncoder",
    "DenoisingStudent",
    "DenoisingUNet",
    "DenseAutoencoder",
    "EncoderClassifier",
    "FEATURE_LAYERS",
    "FeatureAutoencoder",
    "FeatureFlow",
    "MaskedAutoencoder",
    "MultiscaleDistillation",
    "ReverseDistillation",
    "RefinementNet",
    "RestorerOutput",
    "StandardizedConvolution",
    "UNetRestorer",
]
