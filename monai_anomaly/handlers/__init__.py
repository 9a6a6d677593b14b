# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .image_panels import AnomalyImagePanels
from .metric_handlers import AnomalyMetrics, ImageAP, ImageAUROC, PixelAP, PixelAUROC, PixelBestDice, PixelPRO
from .progress import EpochProgress, loss_value
from .report_writer import ReportWriter
from .result_writers import MetricsWriter, ScoresWriter
from .training_checkpoint import TrainingCheckpoint

__all__ = [
    "AnomalyImagePanels",
    "AnomalyMetrics",
    "EpochProgress",
    "ImageAP",
    "ImageAUROC",
    "MetricsWriter",
    "PixelAP",
    "PixelAUROC",
    "PixelBestDice",
    "PixelPRO",
    "ReportWriter",
    "ScoresWriter",
    "TrainingCheckpoint",
    "loss_value",
]
