# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Natural synthetic anomalies: parts of another image, resized and moved, blended in without a seam.

Reference:
    H. M. Schlueter, J. Tan, B. Hou, B. Kainz: "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and
    Localization", ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ...functional.blending import SMALLEST_BOX, poisson_blend_boxes
from ...functional.labelling import (
    binary_label,
    intensity_label,
    logistic_label,
    median_change,
    smooth_support,
    weight_label,
)
from ..anatomy.foreground import DifferentFromBackground
from ..checks import check_choice, check_range
from .anomaly import COUNTS, RandAnomaly
from .corruptors import eroded_patch
from .dictionary import RandAnomalyd
from .natural_parts import MovedPart, RandomPart
from .placements import FixedPlacement
from .placing import PatchBatch
from .plan import Frame, Patch, Sources
from .sources import source_boxes

MODES = ("source", "mixed", "uniform", "swap")
LABELS = ("logistic", "binary", "factor", "intensity")
GREY_LEVELS = 255
"""Published thresholds are in grey levels of 8 bits; here they are fractions of the value range."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "half_width": (0.05, 0.2),
        "gamma": "uniform",
        "max_anomalies": 1,
        "min_object": 0.25,
        "min_overlap": 0.25,
        "background": "none",
        "logistic": (1 / 6, 20),
    },
    "cxr": {
        "half_width": (0.03, 0.4),
        "gamma": (2, 0.03, 0.05),
        "max_anomalies": 3,
        "min_object": 0.7,
        "min_overlap": 0.7,
        "background": (0, 20),
        "logistic": (1 / 2, 4),
    },
    "mvtec": {
        "half_width": (0.03, 0.4),
        "gamma": (2, 0.05, 0.03),
        "max_anomalies": 3,
        "min_object": 0.25,
        "min_overlap": 0.25,
        "background": (200, 60),
        "logistic": (1 / 6, 20),
    },
}
"""What the authors chose for images in general, for chest radiographs and for MVTec AD, there class by class."""

_LABEL_RADIUS, _SUPPORT_RADIUS, _RADII_AT = 5, 2, 224  # of the medians, in pixels, from images of this size on


class RandNSA(RandAnomaly):
    """Natural synthetic anomalies: a part of another image, resized, moved and blended in.

    Args:
        source: images to take parts of, see :class:`RandAnomaly`; None: given at each call, or the rest of the batch.
        mode: "source" (default): Poisson blending with the gradients of the part ("Shift"); "mixed": with the stronger
            ones of part and image ("Shift-M"); "uniform": mean weighted by alpha (as FPI); "swap": the part itself (as
            CutPaste).
        label: "logistic" (default) or "intensity" of the change, "factor", that is, alpha, or "binary".
        preset: where arguments that are None come from: "default", "cxr" or "mvtec", see ``PRESETS``.
        half_width: smallest and largest half width of a part; a pair, or one for each axis.
        gamma: shape, scale and offset of the half widths ``(offset + Gamma(shape, scale)) extent``, or "uniform".
        unit: what half widths count in: "fraction" of the image (default), "voxel" or "mm".
        max_anomalies: most parts of an image; a coin decides about each but the first, as published.
        min_object: fraction of a part that must be foreground, where it comes from and where it goes.
        min_overlap: fraction of the part's foreground that must go to foreground.
        background: brightness of the background and largest difference to it, in 1/255 of the value range, which
            make the foreground of an image that none is given for; or "none".
        logistic: slope k per grey level and midpoint x0 in grey levels of the label "logistic", where a grey level is
            1/255 of the value range.
        alpha: smallest and largest weight of the part, read with mode "uniform", and with the label "factor" unless the
            mode is "swap"; default (0.05, 0.95). Otherwise it is 1.
        resize: whether parts are resized, by ``clip(N(1, 0.5), 0.7, 1.3)``; default True, False for "uniform" and
            "swap" as published.
        num_ellipses: a part is the union of so many ellipses in its box; default 0: all of the box.
        erode: how often the mask is eroded before the blending, default 0; 3 imitates the published one's (OpenCV's).
        max_attempts: how often a part, and then its place, is drawn before the image is left as it is; default 200.
        kwargs: see :class:`RandAnomaly`. ``tolerance`` is 1/255, of all changes; ``on_empty`` is "skip";
            ``anomaly_count`` is "binomial".

    Raises:
        ValueError: on an argument outside its range.

    Example:
        >>> import torch
        >>> from monai_anomaly.transforms import RandNSA
        >>> image, other = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> result = RandNSA().set_random_state(0)(image, source=other)
        >>> result["image"].shape, result["label"].shape
        (torch.Size([1, 64, 64]), torch.Size([1, 64, 64]))
    """

    def __init__(
        self,
        source: Sources | None = None,
        mode: str = "source",
        label: str = "logistic",
        preset: str = "default",
        half_width: Sequence[float] | Sequence[Sequence[float]] | None = None,
        gamma: Sequence[float] | str | None = None,
        unit: str = "fraction",
        max_anomalies: int | None = None,
        min_object: float | None = None,
        min_overlap: float | None = None,
        background: Sequence[float] | str | None = None,
        logistic: Sequence[float] | None = None,
        alpha: Sequence[float] = (0.05, 0.95),
        resize: bool | None = None,
        num_ellipses: int = 0,
        erode: int = 0,
        max_attempts: int = 200,
        **kwargs: Any,
    ) -> None:
        check_choice("mode", mode, MODES)
        published = {"tolerance": 1 / GREY_LEVELS, "on_empty": "skip", "anomaly_count": COUNTS[1]}
        settings: dict[str, Any] = {**published, **kwargs}
        chosen = _preset(
            preset,
            half_width=half_width,
            gamma=gamma,
            max_anomalies=max_anomalies,
            min_object=min_object,
            min_overlap=min_overlap,
            background=background,
            logistic=logistic,
        )
        low, high = check_range("value_range", settings.get("value_range", (0.0, 1.0)))
        settings.setdefault("foreground", _provider(chosen["background"], low, high))
        shape = RandomPart(chosen["half_width"], chosen["gamma"], num_ellipses, unit)
        poisson = mode in MODES[:2]
        moved = MovedPart(
            shape.bounds,
            settings["foreground"],
            chosen["min_object"],
            chosen["min_overlap"],
            poisson if resize is None else resize,
            poisson,
            max_attempts,
        )
        weighted = mode == "uniform" or (poisson and label == "factor")
        super().__init__(
            shape,
            FixedPlacement(),  # the corruptor draws the place, which depends on what the part shows
            PartBlend(mode, moved, alpha if weighted else (1.0, 1.0), erode),
            ChangeLabel(label, chosen["logistic"], settings["tolerance"]),
            source=source,
            max_anomalies=chosen["max_anomalies"],
            max_attempts=1,
            **settings,
        )


class RandNSAd(RandAnomalyd):
    """Dictionary version of :class:`RandNSA`."""

    corruption = RandNSA


class PartBlend:
    """Blend a part of another image in.

    Args:
        mode: see :class:`RandNSA`.
        part: chooses the part and its place.
        alpha: smallest and largest weight of the part.
        erode: how often the mask is eroded before.
    """

    smallest = SMALLEST_BOX
    voxels = False
    foreign = True

    def __init__(self, mode: str, part: MovedPart, alpha: Sequence[float], erode: int = 0) -> None:
        if erode < 0:
            raise ValueError(f"erode must be 0 or more, got {erode!r}")
        self.mode = mode
        self.part = part
        self.alpha = check_range("alpha", alpha, 0, 1)
        self.erode = erode

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the part, its place and its weight."""
        patch.weight = float(rng.uniform(*self.alpha))
        moved = self.part(rng, patch, frame)
        return None if moved is None else eroded_patch(moved, self.erode)

    def apply(self, batch: PatchBatch) -> Tensor:
        """Blend all boxes at once; a weight scales the change of the gradients, and so that of the image."""
        boxes, parts = batch.boxes, source_boxes(batch)
        if self.mode in MODES[:2]:
            parts = poisson_blend_boxes(boxes, parts, batch.masks, batch.sizes, self.mode)
            return boxes + batch.weights * (parts - boxes)
        return boxes + batch.weights * batch.masks * (parts - boxes)


class ChangeLabel:
    """Label where the image has changed by more than a tolerance, smoothed by a median of 5 x 5 pixels.

    "intensity" and "logistic" take a median of the change, too, over a disk of radius 5. Both radii are those published
    for images of 224 pixels and more, and shrink with smaller images, where little would be left of an anomaly.

    Args:
        kind: see ``label`` of :class:`RandNSA`.
        logistic: slope per grey level and midpoint in grey levels.
        tolerance: as a fraction of the value range.
    """

    def __init__(self, kind: str, logistic: Sequence[float], tolerance: float) -> None:
        check_choice("label", kind, LABELS)
        if len(logistic) != 2 or logistic[0] <= 0:
            raise ValueError(f"logistic must be a slope above 0 and a midpoint, got {logistic!r}")
        steepness, midpoint = logistic[0] * GREY_LEVELS, logistic[1] / GREY_LEVELS
        labels: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
            "binary": binary_label,
            "factor": weight_label,
            "intensity": intensity_label,
            "logistic": partial(logistic_label, steepness=steepness, midpoint=midpoint),
        }
        self.label = labels[kind]
        self.median = kind in ("intensity", "logistic")
        self.tolerance = tolerance

    def __call__(self, change: Tensor, support: Tensor, weight: Tensor) -> Tensor:
        """Label a batch of changes (B, 1, *S)."""
        size = min(change.shape[2:]) / _RADII_AT
        support = support & smooth_support(change > self.tolerance, _width(_SUPPORT_RADIUS, size))
        change = change * support
        if self.median:
            change = median_change(change, support, _width(_LABEL_RADIUS, size))
        return self.label(change, support, weight)


def _width(radius: int, size: float) -> int:
    return 2 * min(round(radius * size), radius) + 1


def _preset(name: str, **given: Any) -> dict[str, Any]:
    """Arguments of a preset, replaced by those given."""
    check_choice("preset", name, tuple(PRESETS))
    return {**PRESETS[name], **{key: value for key, value in given.items() if value is not None}}


def _provider(background: Sequence[float] | str, low: float, high: float) -> DifferentFromBackground | None:
    """Foreground by the brightness of the background, given in grey levels."""
    if isinstance(background, str):
        check_choice("background", background, ("none",))
        return None
    if len(background) != 2 or background[1] < 0:
        raise ValueError(f'background must be a brightness and a difference, or "none", got {background!r}')
    level = (high - low) / GREY_LEVELS
    return DifferentFromBackground(low + background[0] * level, background[1] * level)


RandNSAD = RandNSADict = RandNSAd
