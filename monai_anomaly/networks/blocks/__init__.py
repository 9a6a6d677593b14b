# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .ensemble import NetworkEnsemble
from .feature_extractor import FeatureExtractor
from .folds import NetworkFolds, fold_member
from .layer_reader import read_layers
from .memory import MemoryBlock
from .outputs import AutoencoderOutput, EnsembleOutput, MaskedOutput

__all__ = [
    "FeatureExtractor",
    "read_layers",
    "AutoencoderOutput",
    "EnsembleOutput",
    "MaskedOutput",
    "MemoryBlock",
    "NetworkEnsemble",
    "NetworkFolds",
    "fold_member",
]
