# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .map_inferer import EnsembleInferer, MapInferer, ReconstructionInferer
from .restoration_inferer import RestorationInferer
from .slice_wise_inferer import SliceWiseInferer, in_plane_size

__all__ = [
    "EnsembleInferer",
    "MapInferer",
    "ReconstructionInferer",
    "RestorationInferer",
    "SliceWiseInferer",
    "in_plane_size",
]
