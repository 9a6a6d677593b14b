# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Boxes mixed with another image at the same place: by value (FPI) or by gradient (PII)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from ...functional.labelling import binary_label, weight_label
from ..checks import check_choice, check_range
from .anomaly import Corruptor, RandAnomaly, ShapeMaker
from .corruptors import AlphaBlend, PoissonBlend
from .dictionary import RandAnomalyd
from .placements import CenterPlacement
from .placing import PatchBatch, VoxelBatch
from .plan import Frame, Patch, Sources
from .shapes import HALF_WIDTH, RandomBox
from .sources import SamePlace, source_boxes, stacked_sources

Labeller = Callable[[Tensor, Tensor, Tensor], Tensor]
_NUM_CLASSES = 4  # of anomalous pixels in FPI's classification; class 0 is the background


class RandFPI(RandAnomaly):
    """Foreign patch interpolation: ``(1 - alpha) x + alpha y`` in a box, y another image at the same place.

    The label is alpha where the two images differ. They must be aligned, e.g. be the same slice of two subjects. The
    result lies between the two images, so by default it is not clipped.

    Args:
        source: images to mix in, see :class:`RandAnomaly`; None: given at each call, or the rest of the batch.
        half_width: smallest and largest half width of the box; paper's default (0.05, 0.2) of the first axis.
        core: width of the central part of the image where the center of the box lies, as a fraction; paper's default
            0.8, for brains 0.5.
        alpha: smallest and largest weight of the foreign image; paper's default (0.05, 0.95).
        label: "factor" (default): alpha; "binary"; "classes": alpha is drawn from 1/4, 1/2, 3/4 and 1 instead, and the
            label, alpha, is the class 1 to 4 divided by 4, as in the paper's classification of abdominal CT.
        unit: what the half width counts in: "fraction" (default), "voxel" or "mm".
        cube: whether all axes share one half width (default, as published), else each axis has its own.
        compat: None (default) compares the mean difference over the channels with ``tolerance``, and takes back what
            differs less; "published" compares the images after rounding them down to multiples of ``tolerance``, any
            channel: nearly equal values on two sides of a multiple then count as different, and values up to a
            tolerance apart need not. Such values are mixed all the same and only get no label.
        kwargs: see :class:`RandAnomaly`; ``clip`` is None; ``tolerance`` is of the difference between the two images.

    Raises:
        ValueError: on an argument outside its range.

    Reference:
        J. Tan, B. Hou, J. Batten, H. Qiu, B. Kainz: "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022
        (MOOD challenge 2020).
    """

    def __init__(
        self,
        source: Sources | None = None,
        half_width: Sequence[float] | None = None,
        core: float = 0.8,
        alpha: Sequence[float] = (0.05, 0.95),
        label: str = "factor",
        unit: str = "fraction",
        cube: bool = True,
        compat: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("label", label, ("factor", "classes", "binary"))
        check_choice("compat", compat, (None, "published"))
        settings: dict[str, Any] = {"clip": None, "tolerance": 1e-3, "keep_unlabelled": compat is not None, **kwargs}
        blend = QuarterBlend() if label == "classes" else AlphaBlend(alpha)
        blend.place = ForeignPlace()
        super().__init__(
            RandomBox(half_width, unit, cube),
            CenterPlacement(core),
            (LabelWhereDifferent if compat else WhereDifferent)(blend, "source", _absolute(settings)),
            binary_label if label == "binary" else weight_label,
            source=source,
            **settings,
        )


class RandPII(RandAnomaly):
    """Poisson image interpolation: a box takes on the gradients of another image, without a seam.

    The gradient of the blend is, for each pair of neighbors, the larger in magnitude of ``(1 - alpha)`` times the own
    and ``alpha`` times the foreign one. What is around the box stays, and so does the border of the image; all of the
    box may change, as in the authors' program. The label is alpha where the image has changed.

    Args:
        source: images to blend in, see :class:`RandAnomaly`; None: given at each call, or the rest of the batch.
        half_width: smallest and largest half width of the box; paper's default (0.05, 0.2) of the first axis.
        core: width of the central part of the image where the center of the box lies, as a fraction; paper's default
            0.8.
        alpha: smallest and largest weight of the foreign image; paper's default (0.05, 0.95).
        label: "factor" (default): alpha; "binary".
        unit: what the half width counts in: "fraction" (default), "voxel" or "mm".
        cube: whether all axes share one half width (default, as published), else each axis has its own.
        compat: None (default): a voxel has changed where the mean change over the channels is above ``tolerance``, and
            smaller changes are taken back; "published": where the image before and after, both rounded down to
            multiples of ``tolerance``, differ in any channel; "upd": where so do the two images to be blended, however
            little the blend has changed, and the width of the box is any whole number of voxels, drawn from twice
            ``half_width`` of the last axis. With the last two, what has not changed gets no label but stays blended.
        kwargs: see :class:`RandAnomaly`.

    Raises:
        ValueError: on an argument outside its range.

    Reference:
        J. Tan, B. Hou, T. Day, J. Simpson, D. Rueckert, B. Kainz: "Detecting Outliers with Poisson Image
        Interpolation", MICCAI 2021; compat="upd": I. Lagogiannis et al.: "Unsupervised Pathology Detection: A Deep Dive
        Into the State of the Art", IEEE TMI 2024.
    """

    def __init__(
        self,
        source: Sources | None = None,
        half_width: Sequence[float] | None = None,
        core: float = 0.8,
        alpha: Sequence[float] = (0.05, 0.95),
        label: str = "factor",
        unit: str = "fraction",
        cube: bool = True,
        compat: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("label", label, ("factor", "binary"))
        check_choice("compat", compat, (None, "published", "upd"))
        settings: dict[str, Any] = {"tolerance": 1e-3, "keep_unlabelled": compat is not None, **kwargs}
        shape: ShapeMaker = RandomBox(half_width, unit, cube)
        corruptor: Corruptor = PoissonBlend("pii", alpha, ForeignPlace(), border="image")
        least = _absolute(settings)
        if compat == "upd":
            shape = WholeWidthBox(HALF_WIDTH if half_width is None else half_width)
            corruptor = LabelWhereDifferent(corruptor, "source", least)
        elif compat == "published":
            corruptor = LabelWhereDifferent(corruptor, "result", least)
        # in the mask any change counts as one, hence the threshold of the label; what gets no label is undone
        kind = binary_label if label == "binary" else weight_label
        labeller = kind if compat else partial(changed_label, kind=kind, least=settings["tolerance"])
        super().__init__(shape, CenterPlacement(core), corruptor, labeller, source=source, **settings)


class RandFPId(RandAnomalyd):
    """Dictionary version of :class:`RandFPI`."""

    corruption = RandFPI


class RandPIId(RandAnomalyd):
    """Dictionary version of :class:`RandPII`."""

    corruption = RandPII


class ForeignPlace(SamePlace):
    """A foreign image at the place of the patch; None where it shows the very same there, as an image drawn twice."""

    def __call__(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the image."""
        drawn = super().__call__(rng, patch, frame)
        if drawn is None or drawn.source is None:
            return None
        own = frame.image.as_tensor() if isinstance(frame.image, MetaTensor) else frame.image
        box = (slice(None), *[slice(low, low + n) for low, n in zip(patch.corner, patch.mask.shape, strict=True)])
        return None if torch.equal(drawn.source[box].to(own), own[box]) else drawn


class WhereDifferent:
    """Another corruption, done only where two images differ.

    Args:
        corruptor: the corruption.
        other: what the image is compared with: "source", the foreign image at the same place, or "result".
        least: mean absolute difference over the channels above which a voxel differs, as an intensity.
    """

    def __init__(self, corruptor: Corruptor, other: str, least: float) -> None:
        check_choice("other", other, ("source", "result"))
        self.corruptor = corruptor
        self.other = other
        self.least = least
        self.smallest = corruptor.smallest
        self.voxels = corruptor.voxels
        self.foreign = getattr(corruptor, "foreign", False)

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the corruption."""
        return self.corruptor.draw(rng, patch, frame)

    def apply(self, batch: PatchBatch | VoxelBatch) -> Tensor:
        """Corrupt, and take back what does not count."""
        after = self.corruptor.apply(batch)
        difference = (batch.values - self._other(batch, after)).abs().mean(1, keepdim=True)
        return torch.where(difference > self.least, after, batch.values)

    def _other(self, batch: PatchBatch | VoxelBatch, after: Tensor) -> Tensor:
        return _foreign(batch) if self.other == "source" else after


class LabelWhereDifferent(WhereDifferent):
    """Another corruption, done everywhere and labelled only where two images differ, as in published programs.

    A voxel differs where any channel does after both images are rounded down to multiples of ``least``, if that is
    above 0.

    Args:
        corruptor: see :class:`WhereDifferent`.
        other: see there.
        least: see above.
    """

    def apply(self, batch: PatchBatch | VoxelBatch) -> Tensor:
        """Corrupt."""
        return self.corruptor.apply(batch)

    def labelled(self, batch: PatchBatch | VoxelBatch, after: Tensor) -> Tensor:
        """Voxels that differ, (N, 1, ...), bool."""
        other = self._other(batch, after)
        return (_floor(batch.values, self.least) != _floor(other, self.least)).any(1, keepdim=True)


class QuarterBlend(AlphaBlend):
    """Mix with another image, whose weight is 1/4, 1/2, 3/4 or 1."""

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the foreign image and its weight."""
        patch.weight = float(rng.randint(1, _NUM_CLASSES + 1)) / _NUM_CLASSES
        return self.place(rng, patch, frame)


class WholeWidthBox:
    """Square boxes of any whole width, odd ones too.

    Args:
        half_width: half the smallest and half the largest width as fractions of the last axis; default (0.05, 0.2).
    """

    def __init__(self, half_width: Sequence[float] = (0.05, 0.2)) -> None:
        self.half_width = check_range("half_width", half_width, 0)

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        """Draw a mask that is true everywhere."""
        low, high = (max(round(2 * bound * frame.shape[-1]), 1) for bound in self.half_width)
        return np.ones((rng.randint(low, max(high, low + 1)),) * len(frame.shape), dtype=bool)


def changed_label(change: Tensor, support: Tensor, weight: Tensor, kind: Labeller, least: float) -> Tensor:
    """Label of another kind where the change is above a fraction of the value range, else zero."""
    return kind(change, support & (change > least), weight)


def _absolute(settings: dict[str, Any]) -> float:
    """The tolerance as an intensity."""
    low, high = settings.get("value_range", (0.0, 1.0))
    return float(settings["tolerance"]) * (high - low)


def _foreign(batch: PatchBatch | VoxelBatch) -> Tensor:
    """The foreign images at the place of the patches."""
    if isinstance(batch, VoxelBatch):
        return batch.take(stacked_sources(batch), range(len(batch)))
    return source_boxes(batch)


def _floor(values: Tensor, step: float) -> Tensor:
    return (values / step).floor() if step > 0 else values


RandFPID = RandFPIDict = RandFPId
RandPIID = RandPIIDict = RandPIId
