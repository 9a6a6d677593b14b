# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .anomaly_map import ENSEMBLE_SCORES, EnsembleMap, MapOutput, ReconstructionMap
from .classifier_map import ClassifierMap, ScoredMapOutput
from .diffusion_map import RESIDUALS, DiffusionMap, DiffusionSampler, RestorationOutput
from .discrepancy_map import DISCREPANCY_SCORES, REFINED_SCORES, DiscrepancyMap
from .ensemble import NetworkEnsemble
from .folds import NetworkFolds, fold_member
from .masked_map import (
    SAMPLERS,
    VISIBLE,
    InterDiscrepancyMap,
    MaskedNetwork,
    MaskedReconstructionMap,
    MaskSets,
    mean_reconstruction,
)
from .memory import MemoryBlock
from .one_step import OneStepRestorer
from .outputs import AutoencoderOutput, EnsembleOutput, MaskedOutput

__all__ = [
    "AutoencoderOutput",
    "ClassifierMap",
    "DISCREPANCY_SCORES",
    "DiffusionMap",
    "DiffusionSampler",
    "DiscrepancyMap",
    "ENSEMBLE_SCORES",
    "EnsembleMap",
    "EnsembleOutput",
    "InterDiscrepancyMap",
    "MapOutput",
    "MaskSets",
    "MaskedNetwork",
    "MaskedOutput",
    "MaskedReconstructionMap",
    "MemoryBlock",
    "NetworkEnsemble",
    "NetworkFolds",
    "OneStepRestorer",
    "REFINED_SCORES",
    "RESIDUALS",
    "ReconstructionMap",
    "RestorationOutput",
    "SAMPLERS",
    "ScoredMapOutput",
    "VISIBLE",
    "fold_member",
    "mean_reconstruction",
]
