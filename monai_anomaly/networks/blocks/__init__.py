# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .ensemble import NetworkEnsemble
from .folds import NetworkFolds, fold_member
from .memory import MemoryBlock
from .outputs import AutoencoderOutput, EnsembleOutput, MaskedOutput

__all__ = [
    "AutoencoderOutput",
    "EnsembleOutput",
    "MaskedOutput",
    "MemoryBlock",
    "NetworkEnsemble",
    "NetworkFolds",
    "fold_member",
]
