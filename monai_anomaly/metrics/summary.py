# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor

from ..functional.binned_curves import (
    Bracket,
    binned_average_precision,
    binned_best_dice,
    binned_region_overlap,
    binned_roc_auc,
)
from ..functional.bootstrap import Interval, bootstrap_counts, bootstrap_scores
from ..functional.curves import (
    IMAGE_STATISTICS,
    average_precision_from_counts,
    best_dice_from_counts,
    region_overlap_from_counts,
    roc_auc_from_counts,
)
from ..utils import finite_or_none, one_spelling
from .image_accumulator import ImageScores
from .pixel_accumulator import PixelCounts

__all__ = ["MetricSummary", "summarize_metrics"]

#: metrics whose threshold is chosen on the labels that they are measured on
ORACLE_METRICS = ("pixel_best_dice",)
#: an error bound of a streaming metric above this is worth a warning
LARGE_ERROR_BOUND = 0.01
# region weights times draws must stay integers that float64 holds exactly
_WEIGHT_SHIFT = 20


class MetricSummary(TypedDict):
    """The measured part of ``metrics.json``; undefined numbers are None.

    ``metrics`` maps a name to value, low, high and oracle; ``counts`` holds images, healthy, anomalous, patients,
    prevalence and pixel_prevalence; ``settings`` what the numbers depend on.
    """

    metrics: dict[str, dict[str, Any]]
    counts: dict[str, Any]
    warnings: list[str]
    settings: dict[str, Any]


def summarize_metrics(
    images: ImageScores,
    pixels: PixelCounts | None = None,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    max_fpr: float = 0.3,
) -> MetricSummary:
    """Compute all metrics with intervals over patients.

    Pixel metrics are left out when no pixel is annotated as abnormal.

    Args:
        images: image scores of all ranks.
        pixels: pixel counts of all ranks; None without maps or labels.
        num_draws: bootstrap draws; 0 gives no intervals.
        level: coverage of the intervals.
        seed: seed of the draws.
        max_fpr: false positive rate at which the PRO curve is cut.

    Returns:
        metrics, counts, warnings and settings, ready for JSON.
    """
    counts = _count_images(images)
    settings: dict[str, Any] = {"bootstrap_draws": num_draws, "bootstrap_level": level, "bootstrap_seed": seed}
    intervals: dict[str, Interval] = {}
    warnings: list[str] = []
    if counts["images"] > 0:
        intervals.update(
            bootstrap_scores(IMAGE_STATISTICS, images.scores, images.targets, images.patients, num_draws, level, seed)
        )
        warnings += _image_warnings(counts)
    if pixels is not None and int(pixels.counts.positives.sum()) > 0:
        brackets, threshold = _pixel_brackets(pixels, max_fpr)
        intervals.update(_pixel_intervals(pixels, brackets, num_draws, level, seed, max_fpr))
        settings.update(_pixel_settings(pixels, brackets, threshold, max_fpr))
        positives, negatives = int(pixels.counts.positives.sum()), int(pixels.counts.negatives.sum())
        counts["pixel_prevalence"] = positives / (positives + negatives)
        warnings += _bound_warnings(brackets)
        if negatives == 0:
            warnings.append("no annotated pixel is normal: pixel AUROC, AP and PRO are undefined.")
    settings["dropped_draws"] = {
        name: interval["dropped"] for name, interval in intervals.items() if interval["dropped"]
    }
    metrics = {name: _entry(name, interval) for name, interval in intervals.items()}
    return MetricSummary(metrics=metrics, counts=counts, warnings=warnings, settings=settings)


def _count_images(images: ImageScores) -> dict[str, Any]:
    total, anomalous = images.targets.numel(), int((images.targets == 1).sum())
    return {
        "images": total,
        "healthy": total - anomalous,
        "anomalous": anomalous,
        "patients": len(set(one_spelling(images.patients))),
        "prevalence": anomalous / total if total else None,
        "pixel_prevalence": None,
    }


def _image_warnings(counts: Mapping[str, Any]) -> list[str]:
    return [
        f"none of the {counts['images']} evaluated images is {name}: image AUROC and AP are undefined."
        for name in ("healthy", "anomalous")
        if counts[name] == 0
    ]


def _bound_warnings(brackets: Mapping[str, Bracket]) -> list[str]:
    large = {name: round(b.error_bound, 4) for name, b in brackets.items() if b.error_bound > LARGE_ERROR_BOUND}
    if not large:
        return []
    return [f"streaming pixel metrics may be off by up to {large}: raise bits or max_exact_pixels."]


def _pixel_brackets(pixels: PixelCounts, max_fpr: float) -> tuple[dict[str, Bracket], float]:
    dice, threshold = binned_best_dice(pixels.counts)
    brackets = {
        "pixel_auroc": binned_roc_auc(pixels.counts),
        "pixel_ap": binned_average_precision(pixels.counts),
        "pixel_best_dice": dice,
        "pixel_pro": binned_region_overlap(pixels.counts, max_fpr),
    }
    return brackets, threshold


def _pixel_intervals(
    pixels: PixelCounts, brackets: Mapping[str, Bracket], num_draws: int, level: float, seed: int, max_fpr: float
) -> dict[str, Interval]:
    values = {name: bracket.value for name, bracket in brackets.items()}
    if pixels.tables is None or num_draws == 0:
        return {name: Interval(value=value, low=None, high=None, dropped=0) for name, value in values.items()}

    def region_overlap(positives: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
        return region_overlap_from_counts(weights, negatives, max_fpr)

    statistics = {
        "pixel_auroc": lambda positives, negatives, _: roc_auc_from_counts(positives, negatives),
        "pixel_ap": lambda positives, negatives, _: average_precision_from_counts(positives, negatives),
        "pixel_best_dice": lambda positives, negatives, _: best_dice_from_counts(positives, negatives)[0],
        "pixel_pro": region_overlap,
    }
    positives, negatives, weights = pixels.tables
    rounded = (weights + 2 ** (_WEIGHT_SHIFT - 1)) >> _WEIGHT_SHIFT
    return bootstrap_counts(statistics, (positives, negatives, rounded), values, num_draws, level, seed)


def _pixel_settings(
    pixels: PixelCounts, brackets: Mapping[str, Bracket], threshold: float, max_fpr: float
) -> dict[str, Any]:
    return {
        "pixel_mode": pixels.mode,
        "pixel_error_bounds": {name: finite_or_none(bracket.error_bound) for name, bracket in brackets.items()},
        "pixel_best_dice_threshold": finite_or_none(threshold),
        "pixel_pro_max_fpr": max_fpr,
        "regions": pixels.num_regions,
    }


def _entry(name: str, interval: Interval) -> dict[str, Any]:
    return {
        "value": finite_or_none(interval["value"]),
        "low": interval["low"],
        "high": interval["high"],
        "oracle": name in ORACLE_METRICS,
    }
