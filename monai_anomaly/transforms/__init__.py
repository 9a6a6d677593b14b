# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .labels import (
    NOT_ANNOTATED,
    PrepareLabel,
    PrepareLabelD,
    PrepareLabeld,
    PrepareLabelDict,
    ResizeLabelD,
    ResizeLabeld,
    ResizeLabelDict,
)
from .loading import LoadImageChecked, LoadImageCheckedD, LoadImageCheckedd, LoadImageCheckedDict
from .postprocessing import ScoreMapD, ScoreMapd, ScoreMapDict
from .saving import SaveImageMapD, SaveImageMapd, SaveImageMapDict, read_map, resize_to_source
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
    "ResizeLabelD",
    "ResizeLabelDict",
    "ResizeLabeld",
    "SaveImageMapD",
    "SaveImageMapDict",
    "SaveImageMapd",
    "ScoreMapD",
    "ScoreMapDict",
    "ScoreMapd",
    "read_map",
    "resize_to_source",
]
