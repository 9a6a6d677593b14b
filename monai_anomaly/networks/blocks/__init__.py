# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .ensemble import NetworkEnsemble
from .fitted_head import FittedHead
from .folds import NetworkFolds, fold_member
from .gaussian_head import GaussianHead
from .kernel_density import KernelDensity
from .memory import MemoryBlock
from .memory_bank import MemoryBank
from .outputs import AutoencoderOutput, EnsembleOutput, MaskedOutput
from .place_memory import PlaceMemory

__all__ = [
    "AutoencoderOutput",
    "EnsembleOutput",
    "FittedHead",
    "GaussianHead",
    "KernelDensity",
    "MaskedOutput",
    "MemoryBank",
    "MemoryBlock",
    "NetworkEnsemble",
    "NetworkFolds",
    "PlaceMemory",
    "fold_member",
]
