# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .bootstrap import Interval, bootstrap_counts, bootstrap_scores, draw_score_statistics
from .curves import (
    IMAGE_STATISTICS,
    ScoreCounts,
    average_precision,
    average_precision_from_counts,
    best_dice,
    best_dice_from_counts,
    count_scores,
    precision_recall_curve,
    region_overlap_from_counts,
    roc_auc,
    roc_auc_from_counts,
    roc_curve,
)
from .errors import l1_error, l2_error, ssim_error, variance_weighted_error
from .reduction import max_score, mean_score, top_fraction_score
from .regions import per_region_overlap, region_weights
from .similarity import (
    cka,
    cosine_similarity,
    euclidean_similarity,
    hsic,
    manhattan_similarity,
    no_similarity,
    pearson_similarity,
)

__all__ = [
    "IMAGE_STATISTICS",
    "Interval",
    "ScoreCounts",
    "average_precision",
    "average_precision_from_counts",
    "best_dice",
    "best_dice_from_counts",
    "bootstrap_counts",
    "bootstrap_scores",
    "cka",
    "cosine_similarity",
    "count_scores",
    "draw_score_statistics",
    "euclidean_similarity",
    "hsic",
    "l1_error",
    "l2_error",
    "manhattan_similarity",
    "mean_score",
    "no_similarity",
    "pearson_similarity",
    "precision_recall_curve",
    "region_overlap_from_counts",
    "region_weights",
    "roc_auc",
    "roc_auc_from_counts",
    "roc_curve",
    "ssim_error",
    "variance_weighted_error",
    "max_score",
    "top_fraction_score",
    "per_region_overlap",
]
