# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .anomaly_map import ENSEMBLE_SCORES, EnsembleMap, MapOutput, ReconstructionMap
from .ensemble import NetworkEnsemble
from .memory import MemoryBlock
from .outputs import AutoencoderOutput, EnsembleOutput

__all__ = [
    "ENSEMBLE_SCORES",
    "AutoencoderOutput",
    "NetworkEnsemble",
    "EnsembleMap",
    "EnsembleOutput",
    "MapOutput",
    "MemoryBlock",
    "ReconstructionMap",
]
