# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .atrous_pyramid import AtrousPyramid
from .coupling_flow import CouplingFlow
from .embedding_gaussian import EmbeddingGaussian
from .ensemble import NetworkEnsemble
from .feature_extractor import FeatureExtractor
from .feature_learner import FeatureLearner, map_shapes
from .fitted_head import FittedHead
from .folds import NetworkFolds, fold_member
from .gaussian_head import GaussianHead
from .kernel_density import KernelDensity
from .layer_reader import read_layers
from .memory import MemoryBlock
from .memory_bank import MemoryBank
from .outputs import (
    AutoencoderOutput,
    DenoisingOutput,
    EnsembleOutput,
    FeatureOutput,
    LikelihoodOutput,
    MaskedOutput,
)
from .place_memory import PlaceMemory

__all__ = [
    "AtrousPyramid",
    "AutoencoderOutput",
    "CouplingFlow",
    "DenoisingOutput",
    "EmbeddingGaussian",
    "EnsembleOutput",
    "FeatureExtractor",
    "FeatureLearner",
    "FeatureOutput",
    "FittedHead",
    "GaussianHead",
    "KernelDensity",
    "LikelihoodOutput",
    "MaskedOutput",
    "MemoryBank",
    "MemoryBlock",
    "NetworkEnsemble",
    "NetworkFolds",
    "PlaceMemory",
    "fold_member",
    "map_shapes",
    "read_layers",
]
