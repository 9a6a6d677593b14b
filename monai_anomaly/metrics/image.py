# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.metrics.metric import Metric
from torch import Tensor

from ..functional.curves import average_precision, roc_auc
from .image_accumulator import ImageAccumulator

__all__ = ["ImageAPMetric", "ImageAUROCMetric", "compute_image_ap", "compute_image_auroc"]


def compute_image_auroc(y_pred: Tensor, y: Tensor) -> float:
    """Image AUROC, the chance that an anomalous image scores higher than a healthy one; see ``functional.roc_auc``.

    Args:
        y_pred: (N, 1) or (N,) scores; larger is more abnormal.
        y: (N, 1) or (N,) 0 healthy or 1 anomalous, both present.

    Example:
        >>> import torch
        >>> from monai_anomaly.metrics import compute_image_auroc
        >>> compute_image_auroc(torch.tensor([0.1, 0.4, 0.3, 0.9]), torch.tensor([0, 0, 1, 1]))
        0.75
    """
    return roc_auc(y_pred, y)


def compute_image_ap(y_pred: Tensor, y: Tensor) -> float:
    """Image average precision; see ``functional.average_precision``.

    Args:
        y_pred: (N, 1) or (N,) scores; larger is more abnormal.
        y: (N, 1) or (N,) 0 healthy or 1 anomalous, both present.
    """
    return average_precision(y_pred, y)


class _ImageMetric(Metric):
    """Metric of image scores over all batches and ranks.

    Args:
        accumulator: where the images are kept; metrics that share one are fed once, through any of them.
    """

    compute: Callable[[Tensor, Tensor], float]

    def __init__(self, accumulator: ImageAccumulator | None = None) -> None:
        self.accumulator = ImageAccumulator() if accumulator is None else accumulator

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
        """Add images.

        Args:
            y_pred: (B, 1) or (B,) scores, or a list of one per image; larger is more abnormal.
            y: likewise, 0 healthy or 1 anomalous.
            patients: patient of each image.
            indices: position of each image in its data list; an image seen twice counts once.
        """
        self.accumulator.update(_stack(y_pred), _stack(y), patients, indices)

    def get_buffer(self) -> Tensor:
        """Return (N, 2) scores and targets of the images of all ranks."""
        images = self.accumulator.gathered()
        return torch.stack([images.scores, images.targets.to(torch.float64)], 1)

    def aggregate(self) -> float:
        """Return the metric over the images of all ranks; NaN, with a warning, when a class is missing."""
        images = self.accumulator.gathered()
        try:
            return type(self).compute(images.scores, images.targets)
        except ValueError as error:
            warnings.warn(f"{type(self).__name__} is undefined: {error}", stacklevel=2)
            return float("nan")


def _stack(values: Tensor | Sequence[Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values.reshape(-1)
    return torch.cat([torch.as_tensor(value).reshape(1) for value in values]) if len(values) else torch.zeros(0)


class ImageAUROCMetric(_ImageMetric):
    """Image AUROC over all batches and ranks; see :func:`compute_image_auroc`."""

    compute = staticmethod(compute_image_auroc)


class ImageAPMetric(_ImageMetric):
    """Image average precision over all batches and ranks; see :func:`compute_image_ap`."""

    compute = staticmethod(compute_image_ap)
