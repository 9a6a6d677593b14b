# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Parts of another image that show its object, resized and moved to where the image shows its own (NSA)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ...functional.shapes import random_rotation, random_size
from ..checks import check_choice, check_positive
from .anomaly import clip_to_image
from .plan import UNITS, Frame, Patch, to_mask
from .sources import match_channels

_SMALLEST_HALF_WIDTH = 2  # the border of a box stays as it is
_LEAST_PIXELS, _LEAST_AT = 50, 256  # fewer pixels of a square image of this size make no anomaly


class RandomPart:
    """Boxes of any aspect, or unions of ellipses in them.

    Args:
        half_width: smallest and largest half width, a pair or one for each axis.
        gamma: shape, scale and offset of the half widths, or "uniform".
        num_ellipses: number of ellipses; 0 (default): the box.
        unit: what half widths count in: "fraction" (default), "voxel" or "mm".
    """

    def __init__(
        self,
        half_width: Sequence[float] | Sequence[Sequence[float]] = (0.05, 0.2),
        gamma: Sequence[float] | str = "uniform",
        num_ellipses: int = 0,
        unit: str = "fraction",
    ) -> None:
        pairs = np.atleast_2d(np.asarray(half_width, dtype=float))
        if pairs.ndim != 2 or pairs.shape[1] != 2 or (pairs <= 0).any() or (pairs[:, 0] > pairs[:, 1]).any():
            raise ValueError(
                f"half_width must be two ascending numbers above 0, or two for each axis, got {half_width!r}"
            )
        if isinstance(gamma, str):
            check_choice("gamma", gamma, ("uniform",))
        elif len(gamma) != 3 or min(gamma[:2]) <= 0:
            raise ValueError(f'gamma must be shape > 0, scale > 0 and offset, or "uniform", got {gamma!r}')
        if num_ellipses < 0:
            raise ValueError(f"num_ellipses must be 0 or more, got {num_ellipses!r}")
        check_choice("unit", unit, UNITS)
        self.half_width = pairs
        self.gamma = None if isinstance(gamma, str) else (float(gamma[0]), float(gamma[1]), float(gamma[2]))
        self.num_ellipses = num_ellipses
        self.unit = unit

    def bounds(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest half width along each axis in voxels (D,), integers."""
        dims = len(frame.shape)
        if len(self.half_width) not in (1, dims):
            raise ValueError(f"half_width is given for {len(self.half_width)} axes, but the image has {dims}")
        pairs = np.broadcast_to(self.half_width, (dims, 2)) * frame.extent(self.unit)[:, None]
        low, high = np.maximum(np.round(pairs), _SMALLEST_HALF_WIDTH).astype(int).T
        return low, high

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        """Draw a mask, its size even along each axis."""
        low, high = self.bounds(frame)
        if self.gamma is None:
            half = rng.randint(low, np.maximum(high, low + 1))
        else:
            half = random_size(rng, frame.extent(self.unit).tolist(), (low.tolist(), high.tolist()), self.gamma)
        if self.num_ellipses == 0:
            return np.ones(2 * half, dtype=bool)
        return ellipses(rng, 2 * half, low, self.num_ellipses)


def ellipses(rng: np.random.RandomState, size: np.ndarray, smallest: np.ndarray, number: int) -> np.ndarray:
    """Draw a union of tilted ellipses, cut by a box (*size); half axes from ``smallest`` to a quarter of the box."""
    dims = len(size)
    mask = np.zeros(size, dtype=bool)
    voxels = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in size], indexing="ij"), axis=-1)
    for _ in range(number):
        half = rng.uniform(np.minimum(smallest, size / 4), size / 4)
        aligned = (voxels - rng.uniform(0, size)) @ random_rotation(rng, dims, np.pi / 2)
        mask |= ((aligned / half) ** 2).sum(-1) <= 1
    return mask


class MovedPart:
    """Choose a part of a foreign image, resize it, and choose where it goes.

    Args:
        bounds: smallest and largest half width of a part along each axis for an image.
        foreground: makes the foreground of a foreign image that comes without one; None: everywhere.
        min_object: fraction of a part that must be object, in the foreign image and where it goes, in [0, 1].
        min_overlap: fraction of the part's object that must go to object, in [0, 1].
        resize: whether the part is resized.
        fill: whether voxels that are background in both images belong to the mask, too, so that Poisson blending does
            not tear the gradients apart at the edge of the object.
        max_attempts: positions tried in either image before the part is given up.
    """

    def __init__(
        self,
        bounds: Callable[[Frame], tuple[np.ndarray, np.ndarray]],
        foreground: Callable[[Tensor], Tensor] | None,
        min_object: float,
        min_overlap: float,
        resize: bool,
        fill: bool,
        max_attempts: int,
    ) -> None:
        for name, value in (("min_object", min_object), ("min_overlap", min_overlap)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value!r}")
        check_positive(max_attempts=max_attempts)
        self.bounds = bounds
        self.foreground = foreground
        self.min_object = min_object
        self.min_overlap = min_overlap
        self.resize = resize
        self.fill = fill
        self.max_attempts = max_attempts

    def __call__(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the image, the part and its place, which replaces the patch's; None where there is none."""
        source, objects, index = frame.draw_source(rng)
        if source.ndim != frame.image.ndim:
            raise ValueError(f"source {index} is {source.ndim - 1}D, but the image {len(frame.shape)}D")
        if objects is None and self.foreground is not None:
            objects = to_mask(self.foreground(source))
        cut = self._cut(rng, patch.mask, _or_everywhere(objects, tuple(source.shape[1:])), frame)
        if cut is None:
            return None
        first, mask, objects = cut
        extent = np.array(mask.shape)
        size = self._size(rng, extent, frame)
        nearest = np.ix_(*[((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, extent, strict=True)])
        mask, objects = mask[nearest], objects[nearest]
        placed = self._place(rng, mask, objects, frame)
        if placed is None:
            return None
        patch.corner, own = placed
        patch.mask = self._restricted(mask, objects | own, frame)
        patch.source = match_channels(rng, source, frame.channels)
        ratio = extent / size
        # voxel centers on voxel centers: the two boxes coincide from edge to edge
        offset = first + (ratio - 1) / 2
        patch.parameters = {
            "source": index,
            "matrix": np.diag(ratio),
            "offset": offset,
            "first": np.array(first),
            "extent": extent,
        }
        return patch if patch.mask.any() else None

    def _cut(
        self, rng: np.random.RandomState, mask: np.ndarray, objects: np.ndarray, frame: Frame
    ) -> tuple[tuple[int, ...], np.ndarray, np.ndarray] | None:
        """Draw a part that shows enough of the object: its corner, its mask and the object in it."""
        whole, half = np.array(objects.shape), np.array(mask.shape) // 2
        margin = np.minimum(self.bounds(frame)[0], (whole - 1) // 2)
        for _ in range(self.max_attempts if objects.any() or self.min_object == 0 else 0):
            center = rng.randint(margin, whole - margin)
            first, inside = clip_to_image(mask, tuple(center - half), objects.shape)
            shown = _crop(objects, first, inside.shape)
            voxels = np.count_nonzero(inside)
            if voxels and np.count_nonzero(shown & inside) >= self.min_object * voxels:
                return first, inside, shown
        return None

    def _size(self, rng: np.random.RandomState, extent: np.ndarray, frame: Frame) -> np.ndarray:
        """Draw the size of the resized part, of the same aspect, within the bounds and the image."""
        scale = 1.0
        if self.resize:
            low, high = self.bounds(frame)
            scale = float(np.clip(rng.normal(1, 0.5), 0.7, 1.3))
            scale = min(max(scale, float(np.max(2 * low / extent))), float(np.min(2 * high / extent)))
        scale = min(scale, float(np.min(np.array(frame.shape) / extent)))
        return np.maximum(np.round(scale * extent), 1).astype(int)

    def _place(
        self, rng: np.random.RandomState, mask: np.ndarray, objects: np.ndarray, frame: Frame
    ) -> tuple[tuple[int, ...], np.ndarray] | None:
        """Draw a place where enough of the part, and of the object in it, meets the object: corner and object there."""
        foreground = _or_everywhere(frame.foreground, frame.shape)
        least = self.min_object * np.count_nonzero(mask)
        least_overlap = self.min_overlap * np.count_nonzero(mask & objects)
        last = np.array(frame.shape) - mask.shape
        for _ in range(self.max_attempts):
            corner = tuple(rng.randint(0, last + 1).tolist())
            own = _crop(foreground, corner, mask.shape)
            both = own & mask
            if np.count_nonzero(both) >= least and np.count_nonzero(both & objects) >= least_overlap:
                return corner, own
        return None

    def _restricted(self, mask: np.ndarray, objects: np.ndarray, frame: Frame) -> np.ndarray:
        """The mask without its border and without what is background in both images; empty where too little is left."""
        inside = np.zeros_like(mask)
        inside[(slice(1, -1),) * mask.ndim] = True
        result = mask & objects & inside
        least = np.prod(np.sqrt(_LEAST_PIXELS) / _LEAST_AT * np.array(frame.shape))
        if np.count_nonzero(result) < least:
            return np.zeros_like(mask)
        return result | (inside & ~objects) if self.fill else result


def _or_everywhere(objects: np.ndarray | None, size: tuple[int, ...]) -> np.ndarray:
    return np.ones(size, dtype=bool) if objects is None else objects


def _crop(array: np.ndarray, corner: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    return array[tuple(slice(low, low + length) for low, length in zip(corner, size, strict=True))]
