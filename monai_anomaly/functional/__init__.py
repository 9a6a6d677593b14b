# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .blending import poisson_blend, poisson_blend_boxes
from .bootstrap import Interval, bootstrap_counts, bootstrap_scores, draw_score_statistics
from .chi_square import chi_square_distance
from .content_sample import content_priority, lowest_distinct, lowest_vectors, place_phases
from .coreset import farthest_points
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
from .deformation import push_exponent, radial_factor
from .diffusion import denoising_step, diffusion_times, min_snr_weight, noise_of_velocity, shifted_by_content
from .errors import feature_error, l1_error, l2_error, ssim_error, variance_weighted_error
from .feature_errors import direction_error, feature_ssim_error, value_error
from .feature_grid import local_mean, to_grid
from .foreground import holds_signal
from .labelling import (
    binary_label,
    flipped_gaussian_label,
    intensity_label,
    logistic_label,
    mean_change,
    saturating_label,
    weight_label,
)
from .masking import mask_of_kept, num_kept, partition_kept, random_kept
from .moments import Moments, ledoit_wolf_share, merge_moments, moments_of
from .noise import coarse_field, coarse_noise, fractal_noise, gradient_noise
from .patches import patchify, unpatchify
from .pseudo_labels import PseudoLabels, Purity, pseudo_labels, purity
from .published_patches import published_patches
from .quantization import from_nibbles, to_nibbles
from .reduction import max_score, mean_score, top_fraction_score
from .regions import per_region_overlap, region_weights
from .shapes import DeformedShape, deform_shape, random_size, relative_radius
from .similarity import (
    cka,
    cosine_similarity,
    euclidean_similarity,
    hsic,
    manhattan_similarity,
    no_similarity,
    pearson_similarity,
)
from .spline import sample_spline, spline_coefficients

__all__ = [
    "direction_error",
    "feature_ssim_error",
    "from_nibbles",
    "to_nibbles",
    "value_error",
    "DeformedShape",
    "IMAGE_STATISTICS",
    "Interval",
    "Moments",
    "PseudoLabels",
    "Purity",
    "ScoreCounts",
    "average_precision",
    "average_precision_from_counts",
    "best_dice",
    "best_dice_from_counts",
    "binary_label",
    "bootstrap_counts",
    "bootstrap_scores",
    "chi_square_distance",
    "cka",
    "coarse_field",
    "coarse_noise",
    "content_priority",
    "cosine_similarity",
    "count_scores",
    "deform_shape",
    "denoising_step",
    "diffusion_times",
    "draw_score_statistics",
    "euclidean_similarity",
    "farthest_points",
    "feature_error",
    "flipped_gaussian_label",
    "fractal_noise",
    "gradient_noise",
    "holds_signal",
    "hsic",
    "intensity_label",
    "l1_error",
    "l2_error",
    "ledoit_wolf_share",
    "local_mean",
    "logistic_label",
    "lowest_distinct",
    "lowest_vectors",
    "manhattan_similarity",
    "mask_of_kept",
    "max_score",
    "mean_change",
    "mean_score",
    "merge_moments",
    "min_snr_weight",
    "moments_of",
    "no_similarity",
    "noise_of_velocity",
    "num_kept",
    "partition_kept",
    "patchify",
    "pearson_similarity",
    "per_region_overlap",
    "place_phases",
    "poisson_blend",
    "poisson_blend_boxes",
    "precision_recall_curve",
    "pseudo_labels",
    "published_patches",
    "purity",
    "push_exponent",
    "radial_factor",
    "random_kept",
    "random_size",
    "region_overlap_from_counts",
    "region_weights",
    "relative_radius",
    "roc_auc",
    "roc_auc_from_counts",
    "roc_curve",
    "sample_spline",
    "saturating_label",
    "shifted_by_content",
    "spline_coefficients",
    "ssim_error",
    "to_grid",
    "top_fraction_score",
    "unpatchify",
    "variance_weighted_error",
    "weight_label",
]
