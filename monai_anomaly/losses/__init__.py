# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .address_entropy_loss import AddressEntropyLoss
from .feature_direction_loss import FeatureDirectionLoss
from .feature_similarity_loss import FeatureSimilarityLoss
from .foreground_loss import ForegroundLoss
from .heteroscedastic_loss import HeteroscedasticLoss
from .likelihood_loss import LikelihoodLoss
from .masked_reconstruction_loss import MaskedReconstructionLoss
from .noise_prediction_loss import NoisePredictionLoss, NoiseTarget
from .reconstruction_loss import ReconstructionLoss
from .repulsion_loss import RepulsionLoss
from .segmentation_guided_loss import SegmentationGuidedLoss
from .weighted_sum_loss import WeightedSumLoss

__all__ = [
    "AddressEntropyLoss",
    "FeatureDirectionLoss",
    "FeatureSimilarityLoss",
    "ForegroundLoss",
    "HeteroscedasticLoss",
    "LikelihoodLoss",
    "MaskedReconstructionLoss",
    "NoisePredictionLoss",
    "NoiseTarget",
    "ReconstructionLoss",
    "RepulsionLoss",
    "SegmentationGuidedLoss",
    "WeightedSumLoss",
]
