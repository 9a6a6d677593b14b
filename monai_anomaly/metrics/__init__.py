# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .image import ImageAPMetric, ImageAUROCMetric, compute_image_ap, compute_image_auroc
from .image_accumulator import ImageAccumulator, ImageScores
from .pixel import (
    PixelAPMetric,
    PixelAUROCMetric,
    PixelBestDiceMetric,
    PixelPROMetric,
    compute_pixel_ap,
    compute_pixel_auroc,
    compute_pixel_best_dice,
    compute_pixel_pro,
)
from .pixel_accumulator import PixelAccumulator, PixelCounts
from .reconstruction_content import ReconstructionContent
from .score_histogram import ScoreHistogram
from .summary import MetricSummary, summarize_metrics

__all__ = [
    "ImageAPMetric",
    "ImageAUROCMetric",
    "ImageAccumulator",
    "ImageScores",
    "MetricSummary",
    "PixelAPMetric",
    "PixelAUROCMetric",
    "PixelAccumulator",
    "PixelBestDiceMetric",
    "PixelCounts",
    "PixelPROMetric",
    "ReconstructionContent",
    "ScoreHistogram",
    "compute_image_ap",
    "compute_image_auroc",
    "compute_pixel_ap",
    "compute_pixel_auroc",
    "compute_pixel_best_dice",
    "compute_pixel_pro",
    "summarize_metrics",
]
