# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""AnatPaste: CutPaste with soft edges, and only in the lungs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ...functional.boxes import crop_boxes, inside_boxes
from ...functional.jitter import NAMES, draw_jitter, jitter_color
from ...functional.shapes import DeformedShape
from ..anatomy.lungs import LungMask
from ..checks import check_choice, check_positive, check_range
from .anomaly import RandAnomaly
from .dictionary import RandAnomalyd
from .placements import ForegroundPlacement
from .placing import PatchBatch
from .plan import Foreground, Frame, Patch
from .shapes import RandomRectangle

COMPAT = (None, "published")
LUNGS = "lungs"
_FAINT = 0.5 / 255  # weights and changes below it are none in the 8 bits of the published code


class RandomInnerShape:
    """Ellipses and upright rectangles in the middle of a patch that is larger by a margin (2D).

    Args:
        area: smallest and largest area of the patch as fractions of the image's.
        aspect: smallest and largest width to height of the patch.
        margin: between the shape and the edge of the patch in pixels of an image of the reference size, >= 0.
        ellipse_prob: probability of an ellipse.
        reference_size: side in pixels of the square image that the margin is meant for.
        compat: None (default) scales the margin with the image, and keeps a pixel on either side of the center;
            "published" does neither.
    """

    def __init__(
        self,
        area: Sequence[float] = (0.02, 0.15),
        aspect: Sequence[float] = (0.3, 10 / 3),
        margin: float = 10,
        ellipse_prob: float = 0.5,
        reference_size: float = 256,
        compat: str | None = None,
    ) -> None:
        if margin < 0:
            raise ValueError(f"margin must be 0 or more, got {margin!r}")
        if not 0 <= ellipse_prob <= 1:
            raise ValueError(f"ellipse_prob must be in [0, 1], got {ellipse_prob!r}")
        check_positive(reference_size=reference_size)
        check_choice("compat", compat, COMPAT)
        self.patch = RandomRectangle(area, aspect)
        self.margin = margin
        self.ellipse_prob = ellipse_prob
        self.reference_size = reference_size
        self.compat = compat

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> DeformedShape:
        """Draw a shape; its mask is of the size of the patch, odd along each axis."""
        reach = np.minimum(np.array(self.patch(rng, frame).shape) // 2, (np.array(frame.shape) - 1) // 2)
        kind = "ellipsoid" if rng.rand() < self.ellipse_prob else "box"
        half = self._half(reach, frame) + 0.5
        across = [np.arange(-n, n + 1) / h for n, h in zip(reach, half, strict=True)]
        rows, columns = np.meshgrid(*across, indexing="ij")
        inside = rows**2 + columns**2 <= 1 if kind == "ellipsoid" else np.maximum(abs(rows), abs(columns)) <= 1
        return DeformedShape(
            mask=inside, kind=kind, matrix=np.eye(2), half=half, low=-reach.astype(float), inverse=np.eye(2)
        )

    def _half(self, reach: np.ndarray, frame: Frame) -> np.ndarray:
        """Pixels of the shape on either side of its center, from those of the patch."""
        if self.compat is None:
            margin = round(self.margin * _scale(frame, self.reference_size))
            return np.minimum(np.maximum(reach - margin, 1), reach)
        if reach.min() < self.margin:
            raise ValueError(
                f'compat="published" takes a margin of {self.margin} pixels on all sides, which turns a patch of '
                f"{tuple((2 * reach + 1).tolist())} pixels inside out: resize the images to {self.reference_size:g}, "
                "or leave compat out"
            )
        return np.asarray(reach - round(self.margin))


class PasteSoft:
    """Paste another part of the same image with soft edges, weighted with where anomalies may be (2D).

    ``(1 - w) x + w y``; the weight w is the shape times the opacity, blurred, then set to zero outside the foreground.
    It may reach beyond the patch y, whose edge then goes on.

    Args:
        jitter: strength of the color jitter in [0, 0.5], see :func:`~monai_anomaly.functional.jitter.draw_jitter`.
        blur: smallest and largest standard deviation of the blur, whole pixels of an image of the reference size.
        opacity: smallest and largest opacity, whole numbers of 255.
        min_visible: smallest sum of the weights, in pixels of an image of the reference size.
        reference_size: side in pixels of the square image that these are meant for.
        value_range: smallest and largest possible intensity.
        compat: None (default) as above; "published" has black beyond the edge of the patch (a dark halo), and no
            smallest sum.
    """

    smallest = 1
    voxels = False

    def __init__(
        self,
        jitter: float = 0.1,
        blur: Sequence[int] = (0, 14),
        opacity: Sequence[int] = (150, 254),
        min_visible: float = 25,
        reference_size: float = 256,
        value_range: Sequence[float] = (0.0, 1.0),
        compat: str | None = None,
    ) -> None:
        draw_jitter(np.random.RandomState(0), jitter)  # refuses a strength out of range
        if min_visible < 0:
            raise ValueError(f"min_visible must be 0 or more, got {min_visible!r}")
        check_positive(reference_size=reference_size)
        check_choice("compat", compat, COMPAT)
        self.jitter = jitter
        self.blur = _whole("blur", blur, 0, np.inf)
        self.opacity = _whole("opacity", opacity, 1, 255)
        self.min_visible = min_visible
        self.reference_size = reference_size
        self.value_range = check_range("value_range", value_range)
        self.compat = compat

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw what is pasted and how; None where too little of it would be seen."""
        if patch.shape is None:
            raise ValueError("PasteSoft needs the size of the whole patch: give it shapes of RandomInnerShape")
        scale = _scale(frame, self.reference_size)
        size = np.array(patch.shape.mask.shape)
        # no patch is larger than the image, so that one at its lower edge was cut there or not at all
        cut = (size - patch.mask.shape) * (np.array(patch.corner) == 0)
        sigma = scale * rng.randint(self.blur[0], self.blur[1] + 1)
        opacity = rng.randint(self.opacity[0], self.opacity[1] + 1) / 255
        source = rng.randint(0, np.array(frame.shape) - size + 1)
        patch.parameters = {
            "patch_corner": patch.corner - cut,
            "patch_size": size,
            "source_corner": source,
            "kind": patch.shape.kind,
            "sigma": sigma,
            "opacity": opacity,
            **draw_jitter(rng, self.jitter),
        }
        weight = self._spread(patch, frame, sigma) * np.float32(opacity)
        if self.compat is None and weight.sum() < self.min_visible * scale**2:
            return None
        weight[weight < _FAINT] = 0
        return _tight(patch, weight)

    def apply(self, batch: PatchBatch) -> Tensor:
        """Paste all boxes."""
        corner, size, source = (
            np.stack([patch.parameters[name] for patch in batch.patches])
            for name in ("patch_corner", "patch_size", "source_corner")
        )
        common = size.max(0).tolist()
        content = crop_boxes(batch.images, batch.rows, source, common)
        brightness, contrast, saturation, hue = (batch.numbers(name) for name in NAMES)
        low, high = self.value_range
        valid = inside_boxes(size, common, content.device)
        content = jitter_color(content, brightness, contrast, saturation, hue, low, high, valid)
        rows, columns = (
            np.arange(n) + batch.corners[:, a, None] - corner[:, a, None] for a, n in enumerate(batch.size)
        )
        nearest = np.clip(rows, 0, size[:, :1] - 1)[:, :, None] * common[1]
        nearest = nearest + np.clip(columns, 0, size[:, 1:] - 1)[:, None]
        index = torch.from_numpy(nearest).to(content.device).flatten(1)[:, None].expand(-1, content.shape[1], -1)
        pasted = content.flatten(2).gather(2, index).reshape(batch.boxes.shape)
        if self.compat == "published":
            inside = ((rows >= 0) & (rows < size[:, :1]))[:, :, None] & ((columns >= 0) & (columns < size[:, 1:]))[
                :, None
            ]
            pasted = torch.where(torch.from_numpy(inside).to(pasted.device)[:, None], pasted, low)
        return batch.boxes + batch.weights * (pasted - batch.boxes)

    def _spread(self, patch: Patch, frame: Frame, sigma: float) -> np.ndarray:
        """Blur the mask of a patch, for which its box grows; the edge of the image goes on."""
        reach = int(np.ceil(4 * sigma))
        low = np.array(patch.corner)
        high = low + patch.mask.shape
        first, last = np.maximum(low - reach, 0), np.minimum(high + reach, frame.shape)
        patch.mask = np.pad(patch.mask, np.stack([low - first, last - high], 1))
        patch.corner = tuple(first.tolist())
        weight = ndimage.gaussian_filter(patch.mask.astype(np.float32), sigma, mode="nearest", truncate=4.0)
        if frame.foreground is not None:
            inside = frame.foreground[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
            weight, patch.mask = weight * inside, patch.mask & inside
        return np.asarray(weight)


class RandAnatPaste(RandAnomaly):
    """Paste a soft-edged, color-jittered part of a chest radiograph somewhere into its lungs (2D).

    A patch is cut out of the image, jittered, and centered at a random pixel of the lungs. It is seen through an
    ellipse or a rectangle, each with probability one half, that is smaller than the patch by a margin, blurred, and cut
    to the lungs. Lengths are meant for images of ``reference_size`` squared, and scale with the root of the area.

    :func:`~monai_anomaly.functional.binary_label` (default) labels where the image changed,
    :func:`~monai_anomaly.functional.weight_label` how much of it is foreign. The published method labels whole images:
    read ``target``. To find the lungs once, put :class:`~monai_anomaly.transforms.anatomy.LungMaskd` before, in a
    ``CacheDataset``, and set ``foreground_key`` of the dictionary version.

    Args:
        area: smallest and largest area of the patch as fractions of the image's, in [0, 1]; published (0.02, 0.15).
        aspect: smallest and largest width to height of the patch; published (0.3, 3.3), uniform in the logarithm.
        jitter: strength of the color jitter of the patch, in [0, 0.5]; published 0.1.
        margin: between shape and edge of the patch in reference pixels, >= 0; published 10.
        blur: smallest and largest standard deviation of the blur in reference pixels, whole; published (0, 14).
        opacity: smallest and largest opacity in 255ths, whole; published (150, 254).
        ellipse_prob: probability of an ellipse instead of a rectangle; published 0.5.
        min_visible: smallest sum of the weights in reference pixels, below which all is drawn again; default 25.
        reference_size: side of a square image in pixels that lengths are meant for; published 256.
        foreground: where anomalies may be, from (C, H, W) to (1, H, W); "lungs" (default): :class:`LungMask`; None:
            everywhere. A mask that is given with the image goes first.
        value_range: smallest and largest possible intensity, default (0, 1).
        compat: None (default), or "published": the margin is not scaled, and an error where it leaves nothing; black
            beyond the edge of the patch; no smallest sum; an image without lungs gets its patch anywhere
            (``on_empty="ignore"``), and small regions of the lung mask take their bounding box with them.
        kwargs: see :class:`RandAnomaly`; ``on_empty`` is "skip", ``tolerance`` half a grey level of 256.

    Raises:
        ValueError: on an argument outside its range, and for a volume.

    Reference:
        J. Sato et al.: "Anatomy-aware self-supervised learning for anomaly detection in chest radiographs",
        arXiv:2205.04282, 2022.
    """

    dims: ClassVar[tuple[int, ...]] = (2,)

    def __init__(
        self,
        area: Sequence[float] = (0.02, 0.15),
        aspect: Sequence[float] = (0.3, 10 / 3),
        jitter: float = 0.1,
        margin: float = 10,
        blur: Sequence[int] = (0, 14),
        opacity: Sequence[int] = (150, 254),
        ellipse_prob: float = 0.5,
        min_visible: float = 25,
        reference_size: float = 256,
        foreground: Foreground | str | None = LUNGS,
        value_range: Sequence[float] = (0.0, 1.0),
        compat: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(foreground, str):
            check_choice("foreground", foreground, (LUNGS,))
            foreground = LungMask(compat=None if compat is None else "anatpaste")
        shape = RandomInnerShape(area, aspect, margin, ellipse_prob, reference_size, compat)
        corruptor = PasteSoft(jitter, blur, opacity, min_visible, reference_size, value_range, compat)
        settings = {
            "on_empty": "skip" if compat is None else "ignore",
            "tolerance": _FAINT,
            "value_range": value_range,
            **kwargs,
        }
        super().__init__(shape, ForegroundPlacement(), corruptor, foreground=foreground, **settings)
        self.compat = compat


class RandAnatPasted(RandAnomalyd):
    """Dictionary version of :class:`RandAnatPaste`."""

    corruption = RandAnatPaste


def _whole(name: str, value: Sequence[int], low: float, high: float) -> tuple[int, int]:
    first, last = check_range(name, value, low, high)
    if not (first.is_integer() and last.is_integer()):
        raise ValueError(f"{name} must be two whole numbers, got {value!r}")
    return int(first), int(last)


def _scale(frame: Frame, reference_size: float) -> float:
    """Pixels of the image in a reference pixel."""
    return float(np.sqrt(np.prod(frame.shape)) / reference_size)


def _tight(patch: Patch, weight: np.ndarray) -> Patch | None:
    """Cut the box of a patch down to where it has weight; None where it has none."""
    if not weight.any():
        return None
    box = ndimage.find_objects((weight > 0).astype(np.uint8))[0]
    patch.mask = patch.mask[box]
    patch.corner = tuple(low + part.start for low, part in zip(patch.corner, box, strict=True))
    patch.weight = weight[box]
    return patch


RandAnatPasteD = RandAnatPasteDict = RandAnatPasted
