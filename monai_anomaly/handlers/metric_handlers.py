# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Ignite handlers of the anomaly metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import decollate_batch
from monai.handlers import IgniteMetricHandler
from torch import Tensor

from ..metrics.image import ImageAPMetric, ImageAUROCMetric
from ..metrics.image_accumulator import ImageAccumulator
from ..metrics.pixel import PixelAPMetric, PixelAUROCMetric, PixelBestDiceMetric, PixelPROMetric
from ..metrics.pixel_accumulator import PixelAccumulator
from ..metrics.summary import MetricSummary, summarize_metrics
from ..utils import Keys

__all__ = ["AnomalyMetrics", "ImageAP", "ImageAUROC", "PixelAP", "PixelAUROC", "PixelBestDice", "PixelPRO"]

IMAGE_METRICS = ("image_auroc", "image_ap")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro")


class AnomalyMetrics:
    """Compute all image and pixel metrics of an evaluation, with intervals over patients, from one store of the scores.

    Reads ``anomaly_map``, ``score``, ``label``, ``target``, ``patient`` and ``index`` of each image in
    ``engine.state.output``; an image without some of them is left out of what needs them. At the end of the epoch, on
    every rank:

    - ``engine.state.metrics``: a float per metric (``image_auroc``, ``image_ap``, ``pixel_auroc``, ``pixel_ap``,
      ``pixel_best_dice``, ``pixel_pro``), NaN, with one warning, where it is undefined; pixel metrics are left out
      when no pixel is annotated as abnormal;
    - ``engine.state.metric_intervals``: per metric ``{"value", "low", "high", "oracle"}``;
    - ``engine.state.metric_summary``: these with counts, warnings and settings, as ``metrics.json`` wants them.

    It serves as a key metric, ``key_val_metric={"image_auroc": AnomalyMetrics()}``, and as a handler, which must then
    stand before those that read the metrics.

    Args:
        pixel: whether to compute pixel metrics, where maps and labels are there.
        num_draws: bootstrap draws of the intervals; 0 for none.
        level: coverage of the intervals.
        seed: seed of the draws.
        mode: "auto", "exact" or "streaming", see :class:`monai_anomaly.metrics.PixelAccumulator`.
        max_exact_pixels: annotated pixels up to which "auto" stays exact.
        bits: the streaming histogram has 2 ** bits bins.
        max_fpr: false positive rate at which the PRO curve is cut, in (0, 1].
        connectivity: neighborhood of the regions of PRO, default all neighbors.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        pixel: bool = True,
        num_draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
        mode: str = "auto",
        max_exact_pixels: int = 20_000_000,
        bits: int = 16,
        max_fpr: float = 0.3,
        connectivity: int | None = None,
    ) -> None:
        if num_draws < 0:
            raise ValueError(f"num_draws must be at least 0, got {num_draws}.")
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be in (0, 1), got {level}.")
        if not 0.0 < max_fpr <= 1.0:
            raise ValueError(f"max_fpr must be in (0, 1], got {max_fpr}.")
        self.pixel, self.num_draws, self.level, self.seed, self.max_fpr = pixel, num_draws, level, seed, max_fpr
        self.images = ImageAccumulator()
        self.pixels = PixelAccumulator(mode, max_exact_pixels, bits, connectivity, keep_patients=num_draws > 0)

    def attach(self, engine: Engine, name: str | None = None) -> None:
        """Attach to an evaluator.

        Args:
            engine: the evaluator.
            name: the metric that the engine takes as its key metric, if it does.

        Raises:
            ValueError: ``name`` is not one of the metrics.
        """
        allowed = IMAGE_METRICS + (PIXEL_METRICS if self.pixel else ())
        if name is not None and name not in allowed:
            raise ValueError(f"the key metric must be one of {allowed}, got {name!r}.")
        self._key = name
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.compute)

    def reset(self, engine: Engine) -> None:
        """Forget the last epoch."""
        self.images.reset()
        self.pixels.reset()
        for name in IMAGE_METRICS + PIXEL_METRICS:
            engine.state.metrics.pop(name, None)

    def __call__(self, engine: Engine) -> None:
        """Add the images of one iteration."""
        items = _items(engine.state.output)
        scored = [item for item in items if _has(item, Keys.SCORE, Keys.TARGET) and int(item[Keys.TARGET]) in (0, 1)]
        if scored:
            self.images.update(_column(scored, Keys.SCORE), _column(scored, Keys.TARGET), *_owners(scored))
        mapped = [item for item in items if self.pixel and _has(item, Keys.MAP, Keys.LABEL)]
        if mapped:
            maps, labels = [item[Keys.MAP] for item in mapped], [item[Keys.LABEL] for item in mapped]
            self.pixels.update(maps, labels, *_owners(mapped))

    def compute(self, engine: Engine) -> None:
        """Gather all ranks and write the metrics into the engine's state."""
        pixels = self.pixels.gathered() if self.pixel else None
        images = self.images.gathered()
        summary = summarize_metrics(images, pixels, self.num_draws, self.level, self.seed, self.max_fpr)
        self._publish(engine, summary)

    def _publish(self, engine: Engine, summary: MetricSummary) -> None:
        values = {name: entry["value"] for name, entry in summary["metrics"].items()}
        if self._key is not None:
            # the engine reads its key metric at every epoch, so an undefined one must be there too
            values.setdefault(self._key, None)
        state: Any = engine.state
        state.metrics.update({name: math.nan if value is None else value for name, value in values.items()})
        state.metric_intervals = summary["metrics"]
        state.metric_summary = summary
        if any(value is None for value in values.values()):
            undefined = [name for name, value in values.items() if value is None]
            reason = (
                " ".join(summary["warnings"])
                or "no score with a target, or no annotated abnormal pixel, was evaluated."
            )
            warnings.warn(f"undefined metrics {undefined}: {reason}", stacklevel=2)


def _items(output: Any) -> list[Mapping[str, Any]]:
    return decollate_batch(output) if isinstance(output, Mapping) else list(output)


def _has(item: Mapping[str, Any], *keys: str) -> bool:
    return all(item.get(key) is not None for key in keys)


def _plain(value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    return tensor.as_subclass(Tensor)


def _column(items: Sequence[Mapping[str, Any]], key: str) -> Tensor:
    """Return (B,) of a field that holds one number per image."""
    return torch.cat([_plain(item[key]).detach().cpu().to(torch.float64).reshape(1) for item in items])


def _owners(items: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[int]]:
    """Return patient and index of each image, None and -1 where unknown."""
    indices = [-1 if item.get(Keys.INDEX) is None else int(item[Keys.INDEX]) for item in items]
    return [item.get(Keys.PATIENT) for item in items], indices


def _image_output(output: Any) -> tuple[Tensor, Tensor]:
    items = [item for item in _items(output) if _has(item, Keys.SCORE, Keys.TARGET)]
    if not items:
        return torch.zeros(0), torch.zeros(0)
    return _column(items, Keys.SCORE), _column(items, Keys.TARGET)


def _pixel_output(output: Any) -> tuple[list[Tensor], list[Tensor]]:
    items = [item for item in _items(output) if _has(item, Keys.MAP, Keys.LABEL)]
    return [item[Keys.MAP] for item in items], [item[Keys.LABEL] for item in items]


class _ImageHandler(IgniteMetricHandler):
    """One image metric as an Ignite metric; :class:`AnomalyMetrics` gives all of them at once.

    Args:
        output_transform: takes ``engine.state.output``, returns scores and targets of its images.
        save_details: keep scores and targets in ``engine.state.metric_details``.
    """

    metric_class: type[Any]

    def __init__(self, output_transform: Callable = _image_output, save_details: bool = True) -> None:
        super().__init__(self.metric_class(), output_transform=output_transform, save_details=save_details)


class ImageAUROC(_ImageHandler):
    """Image AUROC as one Ignite metric.

    Args:
        output_transform: takes ``engine.state.output``, returns scores and targets of its images.
        save_details: keep scores and targets in ``engine.state.metric_details``.
    """

    metric_class = ImageAUROCMetric


class ImageAP(_ImageHandler):
    """Image average precision as one Ignite metric; arguments as in :class:`ImageAUROC`."""

    metric_class = ImageAPMetric


class _PixelHandler(IgniteMetricHandler):
    """One pixel metric as an Ignite metric; :class:`AnomalyMetrics` gives all of them and stores the pixels once.

    Args:
        output_transform: takes ``engine.state.output``, returns maps and labels of its images.
        options: arguments of the metric, such as ``mode`` and ``max_exact_pixels``.
    """

    metric_class: type[Any]

    def __init__(self, output_transform: Callable = _pixel_output, **options: Any) -> None:
        metric = self.metric_class(**options)
        super().__init__(metric, output_transform=output_transform, save_details=False)


class PixelAUROC(_PixelHandler):
    """Pixel AUROC as one Ignite metric.

    Args:
        output_transform: takes ``engine.state.output``, returns maps and labels of its images.
        options: arguments of :class:`monai_anomaly.metrics.PixelAUROCMetric`.
    """

    metric_class = PixelAUROCMetric


class PixelAP(_PixelHandler):
    """Pixel average precision as one Ignite metric; arguments as in :class:`PixelAUROC`."""

    metric_class = PixelAPMetric


class PixelBestDice(_PixelHandler):
    """Best Dice, an oracle figure, as one Ignite metric; arguments as in :class:`PixelAUROC`."""

    metric_class = PixelBestDiceMetric


class PixelPRO(_PixelHandler):
    """Per-region overlap as one Ignite metric; arguments as in :class:`PixelAUROC`, also ``max_fpr``."""

    metric_class = PixelPROMetric
