# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import RandomizableTransform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ...functional.labelling import binary_label
from ...functional.shapes import DeformedShape
from ...utils import Keys
from ..checks import check_choice, check_count, check_range, name_of, prepare_image
from .canvas import Canvas
from .placing import PatchBatch, VoxelBatch, patch_batches, rows_of
from .plan import Frame, Patch, Plan, Sources, to_mask

_HOMELESS = 5  # shapes that found no place, each after many tries, before an image is left as it is
_ROUNDING = 1e-5  # changes below it, as a fraction of the value range, are none
COUNTS = ("geometric", "binomial")
ON_EMPTY = ("ignore", "skip", "raise")


class ShapeMaker(Protocol):
    """Draws what an anomaly looks like: a mask, or a shape that also knows its edge."""

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray | DeformedShape | None:
        """Draw one; None where there is none."""


class Placement(Protocol):
    """Draws the lower corner of a mask's box in the image, which may lie outside; None where there is no place."""

    def __call__(self, rng: np.random.RandomState, mask: np.ndarray, frame: Frame) -> tuple[int, ...] | None:
        """Draw a corner."""


class Corruptor(Protocol):
    """Changes the voxels of a patch."""

    smallest: int
    """voxels that a box must have along every axis; 1 where there is no such attribute."""
    voxels: bool
    """whether it takes the voxels of the masks as lists (:class:`VoxelBatch`), else, and where there is no such
    attribute, boxes (:class:`PatchBatch`)."""

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw what the patch lacks: source, weight, parameters; None where this patch cannot be had."""

    def apply(self, batch: Any) -> Tensor:
        """Return the values of a :class:`PatchBatch` (N, C, *P) or a :class:`VoxelBatch` (N, C, M) corrupted.

        It draws nothing. The padding of boxes may hold anything; that of lists is a voxel named again, and must get
        that voxel's value.
        """


@runtime_checkable
class LabelledPart(Protocol):
    """A corruptor that says itself which voxels of the masks get a label, changed or not."""

    def labelled(self, batch: Any, after: Tensor) -> Tensor:
        """Return them, (N, 1, *P) or (N, 1, M), bool, given the clipped values after the corruption."""


class RandAnomaly(RandomizableTransform):
    """Make a healthy image sick, out of five parts: where (foreground), shape, placement, corruptor, labeller.

    Drawing and doing are two steps. :meth:`plan` draws everything from ``self.R`` for one image; :meth:`apply` makes
    the drawn anomalies in a whole batch on any device and draws nothing. A call does both for a batch of one.

    The result holds, as a dict: ``image`` (C, *S), float32, inside the range of the clean image; ``clean``, the image
    before; ``label`` (1, *S), float32 in [0, 1]; ``support`` (1, *S), bool, where the anomaly is; ``target``, 1 if an
    anomaly was really made, else 0; ``task``, the number of the corruption drawn, even if it made none; ``params``,
    what was drawn, as JSON. Where the label is zero, nothing changed, unless ``keep_unlabelled``.

    Args:
        shape: draws the mask of an anomaly.
        placement: draws where the mask goes.
        corruptor: changes the voxels.
        labeller: from (change, support, weight), each (B, 1, *S), to the label (B, 1, *S); the change is a fraction of
            the value range. Default :func:`~monai_anomaly.functional.binary_label`.
        foreground: from an image (C, *S) to where anomalies may be (1, *S); None (default): everywhere. One that is
            given with the image goes first.
        source: images to paste from, drawn by index: a dataset of tensors, or of dicts with ``image`` and maybe
            ``foreground``. Its transforms must be deterministic.
        max_anomalies: most anomalies of an image, default 1.
        anomaly_count: how their number is drawn: "geometric" (default, many-tasks): after each one the next follows
            with probability 1/2, so that of three at most one, two and three come with 1/2, 1/4 and 1/4; "binomial"
            (NSA): a coin for each further one, 1/4, 1/2 and 1/4.
        prob: probability that an image is corrupted, default 1.
        on_empty: what to do where the foreground is empty: "ignore" (default) it, "skip" the image or "raise".
        keep_mask: whether all of the drawn mask is part of the support, or only voxels that changed (default).
        keep_unlabelled: whether changes that get no label stay in the image, as in some published programs; default
            False: such voxels become what they were.
        clip: "channel" (default) clips each channel to the range of the clean image's, "sample" to that of the image,
            (low, high) to fixed values, None not at all.
        tolerance: mean absolute change over the channels, as a fraction of the value range, above which a voxel outside
            the mask belongs to the anomaly; smaller changes there are undone. Default 1e-3.
        value_range: smallest and largest possible intensity, default (0, 1).
        max_attempts: how often a part of the anomaly is drawn again before the image is left as it is; default 200.
        task: number of this corruption, which the results carry; default 0.

    Raises:
        ValueError: on an argument outside its range.
    """

    backend = [TransformBackends.TORCH]
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    """spatial dimensions that the corruption is defined for."""

    def __init__(
        self,
        shape: ShapeMaker,
        placement: Placement,
        corruptor: Corruptor,
        labeller: Callable[[Tensor, Tensor, Tensor], Tensor] = binary_label,
        foreground: Callable[[Tensor], Tensor] | None = None,
        source: Sources | None = None,
        max_anomalies: int = 1,
        anomaly_count: str = "geometric",
        prob: float = 1.0,
        on_empty: str = "ignore",
        keep_mask: bool = False,
        keep_unlabelled: bool = False,
        clip: str | Sequence[float] | None = "channel",
        tolerance: float = 1e-3,
        value_range: Sequence[float] = (0.0, 1.0),
        max_attempts: int = 200,
        task: int = 0,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        check_choice("on_empty", on_empty, ON_EMPTY)
        check_choice("anomaly_count", anomaly_count, COUNTS)
        if isinstance(clip, str) or clip is None:
            check_choice("clip", clip, ("channel", "sample", None))
        elif len(clip) != 2 or not clip[0] < clip[1]:
            raise ValueError(f'clip must be "channel", "sample", None or two ascending numbers, got {clip!r}')
        check_count(max_anomalies=max_anomalies, max_attempts=max_attempts)
        if tolerance < 0:
            raise ValueError(f"tolerance must be 0 or more, got {tolerance!r}")
        self.shape = shape
        self.placement = placement
        self.corruptor = corruptor
        self.labeller = labeller
        self.foreground = foreground
        self.source = source
        self.max_anomalies = max_anomalies
        self.anomaly_count = anomaly_count
        self.on_empty = on_empty
        self.keep_mask = keep_mask
        self.keep_unlabelled = keep_unlabelled
        self.clip = clip
        self.tolerance = tolerance
        self.value_range = check_range("value_range", value_range)
        if self.value_range[0] == self.value_range[1]:
            raise ValueError(f"value_range must be two different numbers, got {value_range!r}")
        self.max_attempts = max_attempts
        self.task = task
        self._warned = False

    def __call__(
        self,
        img: NdarrayOrTensor,
        foreground: NdarrayOrTensor | None = None,
        source: NdarrayOrTensor | None = None,
    ) -> dict[str, Any]:
        """Corrupt one image.

        Args:
            img: image (C, *S); integers are converted to float32.
            foreground: where anomalies may be (1, *S), above 0.
            source: image to paste from (C', *S'), read where the transform has no sources of its own.

        Returns:
            see above.

        Raises:
            ValueError: when the image is not finite, has too few or too many axes or a mask does not fit.
        """
        return corrupt_one(self, img, foreground, source)

    def plan(
        self,
        rng: np.random.RandomState,
        image: Tensor,
        foreground: NdarrayOrTensor | None = None,
        sources: Sources | None = None,
    ) -> Plan:
        """Draw the anomalies of one image (C, *S); one with no patch leaves it as it is."""
        if rng.rand() >= self.prob:
            return Plan([], self.task)
        frame = self.frame(image, foreground, sources)
        if frame is None:
            return Plan([], self.task)
        patches: list[Patch] = []
        stops = self.anomaly_count == "geometric"
        for number in range(self.max_anomalies):
            if number and rng.rand() < 0.5:
                if stops:
                    break
                continue
            patch = self._draw(rng, frame)
            if patch is not None:
                patches.append(patch)
            elif stops:
                break
        return Plan(patches, self.task)

    def frame(
        self, image: Tensor, foreground: NdarrayOrTensor | None = None, sources: Sources | None = None
    ) -> Frame | None:
        """Describe an image to the parts; None where its foreground is empty and ``on_empty`` is "skip"."""
        self._check_range(image)
        if foreground is None and self.foreground is not None:
            foreground = self.foreground(image)
        mask = None if foreground is None else to_mask(foreground)
        if mask is not None and mask.shape != tuple(image.shape[1:]):
            raise ValueError(f"the foreground is of size {mask.shape}, but its image of {tuple(image.shape[1:])}")
        if mask is not None and not mask.any():
            if self.on_empty == "raise":
                raise ValueError(f"the foreground of image {name_of(image)} is empty; on_empty='skip' leaves it alone")
            if self.on_empty == "skip":
                return None
            mask = None
        spacing = tuple(image.pixdim.tolist()) if isinstance(image, MetaTensor) else None
        if spacing is not None and len(spacing) != image.ndim - 1:
            spacing = None  # a slice that was indexed out of a volume keeps the affine of the volume
        return Frame(image, mask, sources if self.source is None else self.source, spacing, self.value_range)

    def _check_range(self, image: Tensor) -> None:
        """Warn of an image that is not scaled as the strengths of the anomalies suppose."""
        if self._warned:
            return
        (low, high), (lowest, highest) = self.value_range, torch.aminmax(image)
        if lowest < low - (high - low) or highest > high + (high - low):
            self._warned = True  # once: a whole data set is scaled alike
            warnings.warn(
                f"image {name_of(image)} holds values from {float(lowest):.4g} to {float(highest):.4g}, far beyond the "
                f"value_range {self.value_range} of {type(self).__name__}: scale it first, or give its value_range, "
                "else anomalies may be too weak to see",
                stacklevel=2,
            )

    @property
    def needs_source(self) -> bool:
        """Whether it pastes from other images, and has none of its own."""
        return self.source is None and bool(getattr(self.corruptor, "foreign", False))

    def apply(self, images: Tensor, plans: Sequence[Plan]) -> dict[str, Tensor]:
        """Make the drawn anomalies.

        Args:
            images: clean images (B, C, *S), float, on any device.
            plans: one an image.

        Returns:
            ``image``, ``clean``, ``label``, ``support`` (B, ...), ``target`` and ``task`` (B,), integers.
        """
        with torch.autocast(images.device.type, enabled=False):  # coordinates and solvers need all digits
            return self._apply(images.as_tensor() if isinstance(images, MetaTensor) else images, plans)

    def _apply(self, clean: Tensor, plans: Sequence[Plan]) -> dict[str, Tensor]:
        canvas = Canvas(clean)
        bounds = self._range(clean)
        for turn in range(max((len(plan.patches) for plan in plans), default=0)):
            rows = [row for row, plan in enumerate(plans) if len(plan.patches) > turn]
            patches = [plans[row].patches[turn] for row in rows]
            for batch in patch_batches(canvas.image, rows, patches, getattr(self.corruptor, "voxels", False)):
                self._corrupt(canvas, batch, bounds)
        image, label, support = canvas.label(
            self.labeller, self.value_range[1] - self.value_range[0], self.keep_unlabelled
        )
        return {
            Keys.IMAGE: image,
            Keys.CLEAN: clean.clone(),  # the caller's image stays his, whoever changes the result
            Keys.LABEL: label,
            Keys.SUPPORT: support,
            Keys.TARGET: support.flatten(1).any(1).long(),
            Keys.TASK: torch.tensor([plan.task for plan in plans], device=clean.device),
        }

    def _corrupt(self, canvas: Canvas, batch: PatchBatch | VoxelBatch, bounds: tuple[Tensor, Tensor] | None) -> None:
        """Corrupt the patches of a batch, undo what is too small to count, and write the rest."""
        before = batch.values
        after = self.corruptor.apply(batch)
        if after.shape != before.shape:
            name, given, wanted = type(self.corruptor).__name__, tuple(after.shape), tuple(before.shape)
            raise ValueError(f"{name}.apply must return as many values as it got, {wanted}, but returned {given}")
        if bounds is not None:
            low, high = (
                rows_of(bound, batch.rows).reshape(len(batch), -1, *[1] * (after.ndim - 2)) for bound in bounds
            )
            after = torch.minimum(torch.maximum(after, low), high)
        change = torch.where(batch.valid, (after - before).abs().mean(1, keepdim=True), 0.0)
        if not math.isfinite(change.sum()):
            raise ValueError(f"{type(self.corruptor).__name__}.apply returned NaN or infinite values")
        width = self.value_range[1] - self.value_range[0]
        inside = batch.masks & (change > _ROUNDING * width)
        changed = (change > self.tolerance * width) | inside
        support = changed | batch.masks if self.keep_mask else changed
        if isinstance(self.corruptor, LabelledPart):
            support = batch.masks & self.corruptor.labelled(batch, after)
        canvas.write(batch, after, changed, support)

    def _range(self, clean: Tensor) -> tuple[Tensor, Tensor] | None:
        """Lower and upper bound of the values of each image, (B, C) or (B, 1)."""
        if self.clip is None:
            return None
        if isinstance(self.clip, str):
            low, high = torch.aminmax(clean.flatten(2) if self.clip == "channel" else clean.flatten(1)[:, None], dim=2)
            return low, high
        return clean.new_full((len(clean), 1), self.clip[0]), clean.new_full((len(clean), 1), self.clip[1])

    def _draw(self, rng: np.random.RandomState, frame: Frame) -> Patch | None:
        homeless, smallest = 0, getattr(self.corruptor, "smallest", 1)
        for _ in range(self.max_attempts):
            shape = self.shape(rng, frame)
            if shape is None:
                continue
            mask = np.asarray(shape.mask if isinstance(shape, DeformedShape) else shape, dtype=bool)
            if min(mask.shape) < smallest or not mask.any():
                continue
            corner = self.placement(rng, mask, frame)
            if corner is None:
                homeless += 1
                if homeless == _HOMELESS:
                    return None
                continue
            patch = Patch(*clip_to_image(mask, corner, frame.shape))
            patch.shape = shape if isinstance(shape, DeformedShape) else None
            if min(patch.mask.shape) < smallest or not patch.mask.any():
                continue
            drawn = self.corruptor.draw(rng, patch, frame)
            if drawn is not None:
                return drawn
        return None


def corrupt_one(
    planner: Any, img: NdarrayOrTensor, foreground: NdarrayOrTensor | None, source: NdarrayOrTensor | None
) -> dict[str, Any]:
    """Draw and make the anomalies of one image, see :meth:`RandAnomaly.__call__`."""
    image = prepare_image(img, planner.dims, type(planner).__name__)
    sources = None if source is None else [convert_to_tensor(source, dtype=torch.float32, track_meta=False)]
    plan = planner.plan(planner.R, image, foreground, sources)
    return sample_of(planner.apply(image[None], [plan]), plan, image)


def with_meta_of(image: Tensor, values: Tensor) -> Tensor:
    """Give values the meta data of an image, if it has any, and its trace of transforms, which can then be undone."""
    if not isinstance(image, MetaTensor):
        return values
    meta = {**image.meta, "affine": image.affine.clone()}
    return MetaTensor(values, meta=meta, applied_operations=list(image.applied_operations))


def sample_of(result: dict[str, Tensor], plan: Plan, image: Tensor) -> dict[str, Any]:
    """Take the only image out of a batch of one; maps get the meta data of the image."""
    sample: dict[str, Any] = {}
    for key in (Keys.IMAGE, Keys.CLEAN, Keys.LABEL, Keys.SUPPORT):
        value = result[key][0]
        sample[key] = with_meta_of(image, value)
    sample[Keys.TARGET] = int(result[Keys.TARGET][0])
    sample[Keys.TASK] = int(result[Keys.TASK][0])
    sample[Keys.PARAMS] = json.dumps(plan.describe())
    return sample


def clip_to_image(
    mask: np.ndarray, corner: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], np.ndarray]:
    """Cut off what of a box lies outside the image; returns its corner and its mask."""
    first = [max(-low, 0) for low in corner]
    last = [min(n - low, length) for low, n, length in zip(corner, shape, mask.shape, strict=True)]
    inside = tuple(slice(a, max(a, b)) for a, b in zip(first, last, strict=True))
    return tuple(int(low + a) for low, a in zip(corner, first, strict=True)), mask[inside]
