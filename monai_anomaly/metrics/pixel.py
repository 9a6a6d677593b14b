# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from monai.metrics.metric import Metric
from torch import Tensor

from ..functional.binned_curves import (
    BinnedCounts,
    Bracket,
    binned_average_precision,
    binned_best_dice,
    binned_region_overlap,
    binned_roc_auc,
)
from ..functional.curves import average_precision, best_dice, roc_auc
from ..functional.regions import per_region_overlap
from .pixel_accumulator import PixelAccumulator

__all__ = [
    "PixelAPMetric",
    "PixelAUROCMetric",
    "PixelBestDiceMetric",
    "PixelPROMetric",
    "compute_pixel_ap",
    "compute_pixel_auroc",
    "compute_pixel_best_dice",
    "compute_pixel_pro",
]


def _annotated(y_pred: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if y_pred.shape != y.shape:
        raise ValueError(f"maps and labels must have the same shape, got {tuple(y_pred.shape)} and {tuple(y.shape)}.")
    known = y >= 0
    return y_pred[known], y[known]


def compute_pixel_auroc(y_pred: Tensor, y: Tensor) -> float:
    """Pixel AUROC over all pixels of all images; see ``functional.roc_auc``.

    Args:
        y_pred: (B, 1, *S) anomaly maps; larger is more abnormal.
        y: (B, 1, *S) 0 or 1; pixels below 0 are not annotated and ignored.
    """
    return roc_auc(*_annotated(y_pred, y))


def compute_pixel_ap(y_pred: Tensor, y: Tensor) -> float:
    """Pixel average precision over all pixels of all images; see ``functional.average_precision``.

    Args:
        y_pred: (B, 1, *S) anomaly maps; larger is more abnormal.
        y: (B, 1, *S) 0 or 1; pixels below 0 are not annotated and ignored.

    Example:
        >>> import torch
        >>> from monai_anomaly.metrics import compute_pixel_ap
        >>> compute_pixel_ap(torch.tensor([[[[0.1, 0.9]]]]), torch.tensor([[[[0, 1]]]]))
        1.0
    """
    return average_precision(*_annotated(y_pred, y))


def compute_pixel_best_dice(y_pred: Tensor, y: Tensor) -> tuple[float, float]:
    """Best Dice over all thresholds and its threshold, an oracle figure; see ``functional.best_dice``.

    Args:
        y_pred: (B, 1, *S) anomaly maps; larger is more abnormal.
        y: (B, 1, *S) 0 or 1; pixels below 0 are not annotated and ignored.
    """
    return best_dice(*_annotated(y_pred, y))


def compute_pixel_pro(y_pred: Tensor, y: Tensor, max_fpr: float = 0.3, connectivity: int | None = None) -> float:
    """Per-region overlap; see ``functional.per_region_overlap``.

    Args:
        y_pred: (B, 1, *S) anomaly maps; larger is more abnormal.
        y: (B, 1, *S) 0 or 1; pixels below 0 are not annotated and ignored.
        max_fpr: false positive rate at which the curve is cut, in (0, 1].
        connectivity: neighborhood of the regions, default all neighbors.
    """
    return per_region_overlap(y_pred, y, max_fpr, connectivity)


class _PixelMetric(Metric):
    """Metric of anomaly maps over all pixels of all batches and ranks.

    Args:
        accumulator: where the pixels are kept; metrics that share one are fed once, through any of them. The following
            arguments are then those of the accumulator.
        mode: "auto", "exact" or "streaming", see :class:`PixelAccumulator`.
        max_exact_pixels: annotated pixels up to which "auto" stays exact.
        bits: the streaming histogram has 2 ** bits bins.
    """

    def __init__(
        self,
        accumulator: PixelAccumulator | None = None,
        mode: str = "auto",
        max_exact_pixels: int = 20_000_000,
        bits: int = 16,
    ) -> None:
        self.accumulator = PixelAccumulator(mode, max_exact_pixels, bits) if accumulator is None else accumulator

    def reset(self) -> None:
        """Forget all images."""
        self.accumulator.reset()

    def __call__(
        self,
        y_pred: Tensor | Sequence[Tensor],
        y: Tensor | Sequence[Tensor],
        patients: Sequence[Any] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Add images; arguments as in :meth:`PixelAccumulator.update`."""
        self.accumulator.update(y_pred, y, patients, indices)

    @abstractmethod
    def bracket(self, counts: BinnedCounts) -> Bracket:
        """Compute the metric from counts."""

    def aggregate(self) -> float:
        """Return the metric over the pixels of all ranks; NaN, with a warning, when a class is missing."""
        counts = self.accumulator.gathered().counts
        for total, name in ((counts.positives.sum(), "abnormal"), (counts.negatives.sum(), "normal")):
            if int(total) == 0:
                warnings.warn(f"{type(self).__name__} is undefined: no annotated pixel is {name}.", stacklevel=2)
                return float("nan")
        return self.bracket(counts).value

    @property
    def error_bound(self) -> float:
        """Largest possible distance of :meth:`aggregate` from the exact value; 0 unless streaming."""
        return self.bracket(self.accumulator.gathered().counts).error_bound

    def get_buffer(self) -> None:
        """Return nothing: pixels are not details to keep."""
        return None


class PixelAUROCMetric(_PixelMetric):
    """Pixel AUROC over all batches and ranks; see :func:`compute_pixel_auroc`."""

    def bracket(self, counts: BinnedCounts) -> Bracket:
        """Compute the metric from counts."""
        return binned_roc_auc(counts)


class PixelAPMetric(_PixelMetric):
    """Pixel average precision over all batches and ranks; see :func:`compute_pixel_ap`."""

    def bracket(self, counts: BinnedCounts) -> Bracket:
        """Compute the metric from counts."""
        return binned_average_precision(counts)


class PixelBestDiceMetric(_PixelMetric):
    """Best Dice over all thresholds, batches and ranks, an oracle figure; see :func:`compute_pixel_best_dice`."""

    def bracket(self, counts: BinnedCounts) -> Bracket:
        """Compute the metric from counts."""
        return binned_best_dice(counts)[0]


class PixelPROMetric(_PixelMetric):
    """Per-region overlap over all batches and ranks; see :func:`compute_pixel_pro`.

    Args:
        accumulator: where the pixels are kept; metrics that share one are fed once, through any of them. ``mode`` to
            ``connectivity`` are then those of the accumulator.
        mode: "auto", "exact" or "streaming", see :class:`PixelAccumulator`.
        max_exact_pixels: annotated pixels up to which "auto" stays exact.
        bits: the streaming histogram has 2 ** bits bins.
        connectivity: neighborhood of the regions, default all neighbors.
        max_fpr: false positive rate at which the curve is cut, in (0, 1].

    Raises:
        ValueError: ``max_fpr`` is out of range.
    """

    def __init__(
        self,
        accumulator: PixelAccumulator | None = None,
        mode: str = "auto",
        max_exact_pixels: int = 20_000_000,
        bits: int = 16,
        connectivity: int | None = None,
        max_fpr: float = 0.3,
    ) -> None:
        if not 0.0 < max_fpr <= 1.0:
            raise ValueError(f"max_fpr must be in (0, 1], got {max_fpr}.")
        self.max_fpr = max_fpr
        super().__init__(accumulator or PixelAccumulator(mode, max_exact_pixels, bits, connectivity))

    def bracket(self, counts: BinnedCounts) -> Bracket:
        """Compute the metric from counts."""
        return binned_region_overlap(counts, self.max_fpr)
