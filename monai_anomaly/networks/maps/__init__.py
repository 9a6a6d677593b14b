# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .anomaly_map import ENSEMBLE_SCORES, EnsembleMap, MapOutput, ReconstructionMap
from .classifier_map import ClassifierMap, ScoredMapOutput
from .density_map import DensityMap, DensityOutput
from .diffusion_map import RESIDUALS, DiffusionMap, DiffusionSampler, RestorationOutput
from .discrepancy_map import DISCREPANCY_SCORES, REFINED_SCORES, DiscrepancyMap
from .feature_map import FeatureMap, FeatureMapOutput, direction_map, distillation_score, similarity_map
from .likelihood_map import likelihood_map
from .masked_map import (
    SAMPLERS,
    VISIBLE,
    InterDiscrepancyMap,
    MaskedNetwork,
    MaskedReconstructionMap,
    MaskSets,
    mean_reconstruction,
)
from .one_step import OneStepRestorer
from .segmentation_map import segmentation_map

__all__ = [
    "ClassifierMap",
    "DISCREPANCY_SCORES",
    "DensityMap",
    "DensityOutput",
    "DiffusionMap",
    "DiffusionSampler",
    "DiscrepancyMap",
    "ENSEMBLE_SCORES",
    "EnsembleMap",
    "FeatureMap",
    "FeatureMapOutput",
    "InterDiscrepancyMap",
    "MapOutput",
    "MaskSets",
    "MaskedNetwork",
    "MaskedReconstructionMap",
    "OneStepRestorer",
    "REFINED_SCORES",
    "RESIDUALS",
    "ReconstructionMap",
    "RestorationOutput",
    "SAMPLERS",
    "ScoredMapOutput",
    "VISIBLE",
    "direction_map",
    "distillation_score",
    "likelihood_map",
    "mean_reconstruction",
    "segmentation_map",
    "similarity_map",
]
