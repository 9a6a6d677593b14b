# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste: a part of an image somewhere else in the same image.

Reference:
    C.-L. Li, K. Sohn, J. Yoon, T. Pfister: "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization",
    CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.transforms import Randomizable, Transform
from monai.transforms.traits import MultiSampleTrait
from torch import Tensor

from ...functional.boxes import box_points, crop_boxes
from ...functional.jitter import NAMES, draw_jitter, jitter_color
from ...functional.shapes import DeformedShape, random_rotation, transform_points
from ...functional.spline import REACH, sample_in_range, spline_coefficients, spline_crop
from ...utils import Keys
from ..checks import check_positive, check_range, prepare_image
from .anomaly import RandAnomaly, sample_of
from .dictionary import RandAnomalyd
from .mixture import RandAnomalyMixture
from .placements import UniformPlacement
from .placing import PatchBatch, rows_of
from .plan import Frame, Patch, Plan
from .shapes import RandomRectangle, check_around_one

NORMAL, CUT_PASTE, SCAR = range(3)


class RandomCuboid(RandomRectangle):
    """Rectangles by area and aspect ratio; in 3D cuboids by volume and the aspect ratio of each pair of axes.

    The aspect of axes a < b is the size along b to that along a. In 3D two aspects are drawn, and the cuboid is given
    up where the third, their product, lies out of bounds.

    Args:
        area: smallest and largest area or volume as fractions of the image's; paper's default (0.02, 0.15).
        aspect: smallest and largest aspect, at most and at least 1; published code (0.3, 1 / 0.3), paper (0.3, 3.3).
        distribution: "log" (default) or "paper", see :class:`RandomRectangle`.
    """

    def __init__(
        self, area: Sequence[float] = (0.02, 0.15), aspect: Sequence[float] = (0.3, 10 / 3), distribution: str = "log"
    ) -> None:
        super().__init__(area, aspect, distribution)
        check_around_one(aspect)

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray | None:  # type: ignore[override]
        """Draw a mask that is true everywhere, no larger than the image; None where an aspect is out of bounds."""
        voxels = rng.uniform(*self.area) * np.prod(frame.shape)
        dims = len(frame.shape)
        sides = np.cumsum([0.0, *(np.log(self._ratio(rng)) for _ in range(dims - 1))])
        widest = sides[-1] - sides[0]
        if dims > 2 and not np.log(self.aspect[0]) <= widest <= np.log(self.aspect[1]):
            return None
        size = voxels ** (1 / dims) * np.exp(sides - sides.mean())
        return np.ones(np.clip(np.round(size).astype(int), 1, frame.shape), dtype=bool)


class RandomScar:
    """Thin rotated rectangles (2D); one larger than the image is scaled down.

    Args:
        width: smallest and largest size along the columns before the rotation; paper's default (2, 16) pixels.
        length: smallest and largest size along the rows before the rotation; paper's default (10, 25) pixels.
        max_angle: rotations are uniform in +- max_angle, in radians; paper's default pi/4.
        reference_size: image size that the pixels are meant for, along each axis; paper's default 256.
    """

    def __init__(
        self,
        width: Sequence[float] = (2, 16),
        length: Sequence[float] = (10, 25),
        max_angle: float = np.pi / 4,
        reference_size: float = 256,
    ) -> None:
        self.width = check_range("width", width, 0)
        self.length = check_range("length", length, 0)
        check_positive(reference_size=reference_size)
        if max_angle < 0:
            raise ValueError(f"max_angle must be 0 or more, got {max_angle!r}")
        self.max_angle = max_angle
        self.reference_size = reference_size

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> DeformedShape:
        """Draw a rectangle of whole pixels, and rotate it about its center."""
        shape = np.array(frame.shape)
        drawn = np.array([rng.uniform(*self.length), rng.uniform(*self.width)])
        size = np.maximum(np.round(drawn * shape / self.reference_size), 1)
        matrix = random_rotation(rng, 2, self.max_angle)
        excess = max(np.max(size / shape), np.max(np.abs(matrix) @ size / shape))
        if excess > 1:
            size = np.maximum(np.floor(size / excess), 1)
        # as even or odd as the rectangle along each axis, so that a thin one cannot fall between the pixels
        margin = np.maximum(np.ceil((np.abs(matrix) @ size - size) / 2 - 1e-9), 0)
        canvas = (size + 2 * margin).astype(int)
        rows, columns = (np.arange(n) - (n - 1) / 2 for n in canvas)
        aligned = [np.add.outer(a * rows, b * columns) for a, b in matrix.T]
        inside = [np.abs(u) <= n / 2 + 1e-9 for u, n in zip(aligned, size, strict=True)]
        mask = inside[0] & inside[1]
        first = [int(np.argmax(mask.any(axis))) for axis in (1, 0)]
        last = [min(n - a, a + whole) for n, a, whole in zip(canvas, first, frame.shape, strict=True)]
        place = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        low = first - (canvas - 1) / 2
        return DeformedShape(mask=mask[place], kind="box", matrix=matrix, half=size / 2, low=low, inverse=matrix.T)


class PasteSelf:
    """Paste what another part of the same image holds, with jittered color.

    A :class:`DeformedShape` that is rotated gets the content of the upright rectangle, rotated by a cubic spline.

    Args:
        jitter: strength of the jitter in [0, 0.5]; paper's default 0.1, see
            :func:`~monai_anomaly.functional.jitter.draw_jitter`.
        value_range: smallest and largest possible intensity, default (0, 1); jittered values are clipped to it.
    """

    smallest = 1
    voxels = False

    def __init__(self, jitter: float = 0.1, value_range: Sequence[float] = (0.0, 1.0)) -> None:
        draw_jitter(np.random.RandomState(0), jitter)  # refuses a strength out of range
        self.jitter = jitter
        self.value_range = check_range("value_range", value_range)

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw where the content comes from, anywhere but its own place, and the jitter; None without such a place."""
        size, own = np.array(patch.mask.shape), np.array(patch.corner)
        if patch.shape is not None:
            size = np.round(2 * patch.shape.half).astype(int)
            own = own - patch.shape.low - (size - 1) / 2  # where the centers would be the same
            patch.parameters = {"inverse": patch.shape.inverse, "low": patch.shape.low, "upright": size}
        corner = other_corner(rng, np.array(frame.shape) - size, own)
        if corner is None:
            return None
        patch.parameters |= {"source_corner": corner, **draw_jitter(rng, self.jitter)}
        return patch

    def apply(self, batch: PatchBatch) -> Tensor:
        """Paste all boxes."""
        corners = np.stack([patch.parameters["source_corner"] for patch in batch.patches])
        if "inverse" in batch.patches[0].parameters:
            pasted = _rotated(batch, corners)
        else:
            pasted = crop_boxes(batch.images, batch.rows, corners, batch.size)
        brightness, contrast, saturation, hue = (batch.numbers(name) for name in NAMES)
        low, high = self.value_range
        jittered = jitter_color(pasted, brightness, contrast, saturation, hue, low, high, batch.masks)
        return torch.where(batch.masks, jittered, batch.boxes)


class RandCutPaste(RandAnomaly):
    """Cut a rectangle out of an image and paste it elsewhere, with jittered color (2D; in 3D a cuboid).

    Args:
        area: smallest and largest area or volume of the patch as fractions of the image's, in [0, 1]; paper's default
            (0.02, 0.15).
        aspect: smallest and largest size along one axis to that along an earlier one, at most and at least 1; paper's
            default (0.3, 3.3).
        distribution: "log" (default, as in common implementations): aspects are uniform in the logarithm; "paper": a
            coin decides between the two sides of 1, each uniform.
        jitter: strength of the jitter of brightness, contrast, saturation and hue, in [0, 0.5]; paper's default 0.1.
        value_range: see :class:`RandAnomaly`; jittered values are clipped to it.
        kwargs: see :class:`RandAnomaly`.

    Raises:
        ValueError: on an argument outside its range.

    Example:
        >>> import torch
        >>> from monai_anomaly.transforms import RandCutPaste
        >>> image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> result = RandCutPaste().set_random_state(0)(image)
        >>> result["label"].shape, bool((result["image"] != image)[result["label"] == 0].any())
        (torch.Size([1, 64, 64]), False)
    """

    def __init__(
        self,
        area: Sequence[float] = (0.02, 0.15),
        aspect: Sequence[float] = (0.3, 10 / 3),
        distribution: str = "log",
        jitter: float = 0.1,
        value_range: Sequence[float] = (0.0, 1.0),
        **kwargs: Any,
    ) -> None:
        shape = RandomCuboid(area, aspect, distribution)
        corruptor = PasteSelf(jitter, value_range)
        super().__init__(shape, UniformPlacement(), corruptor, value_range=value_range, **kwargs)


class RandCutPasteScar(RandAnomaly):
    """Cut a thin rectangle out of an image, rotate it, and paste it elsewhere, with jittered color (2D).

    Args:
        width: smallest and largest size along the columns before the rotation; paper's default (2, 16) pixels.
        length: smallest and largest size along the rows before the rotation; paper's default (10, 25) pixels.
        max_angle: rotations are uniform in +- max_angle, in radians; paper's default pi/4.
        reference_size: image size that these pixels are meant for, > 0: an axis of S pixels has S / reference_size of
            them. Paper's default 256.
        jitter: see :class:`RandCutPaste`.
        value_range: see :class:`RandCutPaste`.
        kwargs: see :class:`RandAnomaly`.

    Raises:
        ValueError: on an argument outside its range.
    """

    dims = (2,)

    def __init__(
        self,
        width: Sequence[float] = (2, 16),
        length: Sequence[float] = (10, 25),
        max_angle: float = np.pi / 4,
        reference_size: float = 256,
        jitter: float = 0.1,
        value_range: Sequence[float] = (0.0, 1.0),
        **kwargs: Any,
    ) -> None:
        shape = RandomScar(width, length, max_angle, reference_size)
        corruptor = PasteSelf(jitter, value_range)
        super().__init__(shape, UniformPlacement(), corruptor, value_range=value_range, **kwargs)


class RandCutPasteUnion(RandAnomalyMixture):
    """A rectangle or a scar, each with probability 1/2 (2D); ``target`` is the binary label, ``task`` 1 or 2.

    Args:
        p_clean: probability that an image is left as it is, default 0.
        kwargs: given to both, see :class:`RandCutPaste`: ``jitter`` and what :class:`RandAnomaly` takes. For settings
            of one alone make a :class:`RandAnomalyMixture` of the two.
    """

    def __init__(self, p_clean: float = 0.0, **kwargs: Any) -> None:
        super().__init__(_both(kwargs), p_clean=p_clean)


class RandCutPaste3Way(Randomizable, Transform, MultiSampleTrait):
    """Three samples of one image (2D): as it is, with a rectangle and with a scar; ``task`` is their class, 0, 1 or 2.

    A sample where nothing changed, e.g. of a constant image, is of class 0.

    Args:
        kwargs: given to both, see :class:`RandCutPasteUnion`.
    """

    backend = RandAnomaly.backend

    def __init__(self, **kwargs: Any) -> None:
        self.tasks = _both(kwargs)

    def __call__(
        self,
        img: NdarrayOrTensor,
        foreground: NdarrayOrTensor | None = None,
    ) -> list[dict[str, Any]]:
        """Return the three samples.

        Args:
            img: image (C, H, W); integers are converted to float32.
            foreground: where anomalies may be (1, H, W), above 0.

        Returns:
            three dicts, see :class:`RandAnomaly`.
        """
        image = prepare_image(img, RandCutPasteScar.dims, type(self).__name__)
        nothing = Plan([], NORMAL)
        samples = [sample_of(self.tasks[0].apply(image[None], [nothing]), nothing, image)]
        for task in self.tasks:
            plan = task.plan(self.R, image, foreground)
            samples.append(sample_of(task.apply(image[None], [plan]), plan, image))
            if not samples[-1][Keys.TARGET]:
                samples[-1][Keys.TASK] = NORMAL
        return samples


class RandCutPasted(RandAnomalyd):
    """Dictionary version of :class:`RandCutPaste`."""

    corruption = RandCutPaste


class RandCutPasteScard(RandAnomalyd):
    """Dictionary version of :class:`RandCutPasteScar`."""

    corruption = RandCutPasteScar


class RandCutPasteUniond(RandAnomalyd):
    """Dictionary version of :class:`RandCutPasteUnion`."""

    corruption = RandCutPasteUnion


class RandCutPaste3Wayd(RandAnomalyd, MultiSampleTrait):
    """Dictionary version of :class:`RandCutPaste3Way`: a list of three dicts, which MONAI's ``DataLoader`` flattens.

    What the dicts hold besides is copied, so that later transforms may change it in place.
    """

    corruption = RandCutPaste3Way

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:  # type: ignore[override]
        """Return the sample three times; one without the image once, where that is allowed."""
        for key in self.key_iterator(dict(data)):
            self.refuse_results(key, data)
            foreground = None if self.foreground_key is None else data.get(self.foreground_key)
            try:
                results = self.transform(data[key], foreground)
            except ValueError as error:
                raise ValueError(f'key "{key}": {error}') from error
            rest = {name: value for name, value in data.items() if name != key}
            names = {Keys.IMAGE: key, **self.names}
            return [{**deepcopy(rest), **{names[name]: value for name, value in result.items()}} for result in results]
        return [dict(data)]


def other_corner(rng: np.random.RandomState, last: np.ndarray, own: np.ndarray) -> np.ndarray | None:
    """Draw a corner in 0..last, each as likely as the next but for one that is left out; None where none remains.

    Args:
        rng: where the number comes from.
        last: largest corner along each axis (D,).
        own: the corner left out (D,), if it is one: it may lie outside, or between voxels.
    """
    whole = np.asarray(own).astype(int)
    is_corner = bool(np.all((whole == own) & (whole >= 0) & (whole <= last)))
    count = int(np.prod(last + 1)) - is_corner
    if last.min() < 0 or count == 0:
        return None
    place = rng.randint(count)
    if is_corner:
        place += place >= np.ravel_multi_index(tuple(whole), tuple(last + 1))
    return np.array(np.unravel_index(place, tuple(last + 1)))


def _rotated(batch: PatchBatch, corners: np.ndarray) -> Tensor:
    """Read the upright rectangles of the images at the pixels of the rotated ones, (N, C, *P)."""
    dims = len(batch.size)
    sizes = np.stack([patch.parameters["upright"] for patch in batch.patches])
    crops = crop_boxes(batch.images, batch.rows, corners - REACH, spline_crop(sizes.max(0)))
    low, center = batch.numbers("low"), (batch.numbers("upright").to(crops) - 1) / 2
    points = box_points(batch.size, crops).reshape(1, -1, dims) + low[:, None]
    points = transform_points(points, batch.numbers("inverse")) + (center + REACH)[:, None]
    points = points.reshape(len(batch), *batch.size, dims)
    return sample_in_range(spline_coefficients(crops), points, rows_of(batch.images, batch.rows))


def _both(kwargs: dict[str, Any]) -> list[RandAnomaly]:
    return [RandCutPaste(task=CUT_PASTE, **kwargs), RandCutPasteScar(task=SCAR, **kwargs)]


RandCutPasteD = RandCutPasteDict = RandCutPasted
RandCutPasteScarD = RandCutPasteScarDict = RandCutPasteScard
RandCutPasteUnionD = RandCutPasteUnionDict = RandCutPasteUniond
RandCutPaste3WayD = RandCutPaste3WayDict = RandCutPaste3Wayd
