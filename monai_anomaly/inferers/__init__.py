# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .map_inferer import EnsembleInferer, ReconstructionInferer
from .restoration_inferer import RestorationInferer

__all__ = ["EnsembleInferer", "ReconstructionInferer", "RestorationInferer"]
