# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .progress import EpochProgress, loss_value
from .training_checkpoint import TrainingCheckpoint

from .metric_handlers import AnomalyMetrics, ImageAP, ImageAUROC, PixelAP, PixelAUROC, PixelBestDice, PixelPRO
