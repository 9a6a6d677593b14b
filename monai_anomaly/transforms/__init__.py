# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .labels import NOT_ANNOTATED, PrepareLabel, PrepareLabelD, PrepareLabeld, PrepareLabelDict
from .loading import LoadImageChecked, LoadImageCheckedD, LoadImageCheckedd, LoadImageCheckedDict
from .scaling import ScaleSourceRange, ScaleSourceRangeD, ScaleSourceRanged, ScaleSourceRangeDict

__all__ = [
    "NOT_ANNOTATED",
    "LoadImageChecked",
    "LoadImageCheckedD",
    "LoadImageCheckedDict",
    "LoadImageCheckedd",
    "PrepareLabel",
    "PrepareLabelD",
    "PrepareLabelDict",
    "PrepareLabeld",
    "ScaleSourceRange",
    "ScaleSourceRangeD",
    "ScaleSourceRangeDict",
    "ScaleSourceRanged",
]
