# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .dense_autoencoder import FEATURE_LAYERS, DenseAutoencoder
from .unet_restorer import RestorerOutput, UNetRestorer

__all__ = ["FEATURE_LAYERS", "DenseAutoencoder", "RestorerOutput", "UNetRestorer"]
