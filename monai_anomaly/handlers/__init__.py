# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .discrepancy_loader import DiscrepancyLoader, load_refiner, refiner_settings
from .fit_checkpoint import FitCheckpoint
from .gradient_clipper import GradientClipper
from .healthy_reference import HealthyReference
from .image_panels import AnomalyImagePanels
from .member_loader import MemberLoader, find_members, member_files, member_marks, member_settings, pack_members
from .member_start import MemberStart
from .metric_handlers import AnomalyMetrics, ImageAP, ImageAUROC, PixelAP, PixelAUROC, PixelBestDice, PixelPRO
from .overlay_writer import OverlayWriter, draw_overlay
from .progress import EpochProgress, loss_value
from .pseudo_label_writer import PseudoLabelWriter
from .report_writer import ReportWriter
from .result_writers import MetricsWriter, ScoresWriter
from .smoothed_loss import SmoothedLoss
from .stage_switch import StageSwitch
from .tensorboard_curves import TensorBoardCurves
from .tracking import TRACKED_FILES, ListedLoss, TrackedFiles
from .trained_settings import TrainedSettings, check_trained
from .training_checkpoint import TrainingCheckpoint
from .weight_average import WeightAverage

__all__ = [
    "ListedLoss",
    "TRACKED_FILES",
    "TrackedFiles",
    "AnomalyImagePanels",
    "AnomalyMetrics",
    "DiscrepancyLoader",
    "EpochProgress",
    "FitCheckpoint",
    "GradientClipper",
    "HealthyReference",
    "ImageAP",
    "ImageAUROC",
    "MemberLoader",
    "MemberStart",
    "MetricsWriter",
    "OverlayWriter",
    "PixelAP",
    "PixelAUROC",
    "PixelBestDice",
    "PixelPRO",
    "PseudoLabelWriter",
    "ReportWriter",
    "ScoresWriter",
    "SmoothedLoss",
    "StageSwitch",
    "TensorBoardCurves",
    "TrainedSettings",
    "TrainingCheckpoint",
    "WeightAverage",
    "check_trained",
    "draw_overlay",
    "find_members",
    "load_refiner",
    "loss_value",
    "member_files",
    "member_marks",
    "member_settings",
    "pack_members",
    "refiner_settings",
]
