# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .anomaly_map import ENSEMBLE_SCORES, EnsembleMap, MapOutput, ReconstructionMap
from .diffusion_map import RESIDUALS, DiffusionMap, DiffusionSampler, RestorationOutput
from .ensemble import NetworkEnsemble
from .folds import NetworkFolds, fold_member
from .memory import MemoryBlock
from .outputs import AutoencoderOutput, EnsembleOutput

__all__ = [
    "ENSEMBLE_SCORES",
    "RESIDUALS",
    "AutoencoderOutput",
    "DiffusionMap",
    "DiffusionSampler",
    "NetworkEnsemble",
    "EnsembleMap",
    "EnsembleOutput",
    "MapOutput",
    "MemoryBlock",
    "NetworkFolds",
    "ReconstructionMap",
    "RestorationOutput",
    "fold_member",
]
