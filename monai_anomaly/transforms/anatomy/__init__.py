# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .foreground import (
    AboveMinimum,
    AboveMinimumd,
    AnatomyMask,
    AnatomyMaskd,
    DifferentFromBackground,
    DifferentFromBackgroundd,
)
from .lungs import LungMask, LungMaskd
from .named import NAMED_MASKS, NamedMaskd, WholeImage

__all__ = [
    "AboveMinimum",
    "AboveMinimumd",
    "AnatomyMask",
    "AnatomyMaskd",
    "DifferentFromBackground",
    "DifferentFromBackgroundd",
    "LungMask",
    "LungMaskd",
    "NAMED_MASKS",
    "NamedMaskd",
    "WholeImage",
]
