# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .batch import (
    prepare_feature_batch,
    prepare_image_batch,
    prepare_pair_batch,
    prepare_restoration_batch,
    score_batch,
)
from .bundle_steps import BundleSteps
from .denoising_batch import prepare_denoising_batch
from .devices import device_of_rank, end_processes, is_first_process
from .diffusion_batch import LossBatch, NoisedPair
from .discrepancy_batch import DiscrepancyPair
from .ensemble_trainer import EnsembleTrainer
from .fit_trainer import FitTrainer
from .fold_runs import FoldRuns, end_with_parent
from .masked_batch import MaskedBatch
from .parameter_groups import decay_groups, rate_groups
from .restored_batch import RestoredPair

__all__ = [
    "BundleSteps",
    "DiscrepancyPair",
    "EnsembleTrainer",
    "FitTrainer",
    "FoldRuns",
    "LossBatch",
    "MaskedBatch",
    "NoisedPair",
    "RestoredPair",
    "decay_groups",
    "device_of_rank",
    "end_processes",
    "end_with_parent",
    "is_first_process",
    "prepare_denoising_batch",
    "prepare_feature_batch",
    "prepare_image_batch",
    "prepare_pair_batch",
    "prepare_restoration_batch",
    "rate_groups",
    "score_batch",
]
