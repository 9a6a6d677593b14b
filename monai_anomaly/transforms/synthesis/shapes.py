# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What anomalies look like: parts that draw the mask of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...functional.shapes import DeformedShape, deform_shape, random_size
from ..checks import check_choice, check_positive, check_range, check_sizes
from .plan import UNITS, Frame

BOUNDS = (0.06, 0.8)
GAMMA = (2.0, 0.1, 0.03)
HALF_WIDTH = (0.05, 0.2)
_VISIBLE = 0.02


class RandomDeformedShape:
    """Sheared and rotated boxes and ellipsoids of many-tasks.

    Args:
        bounds: smallest and largest size along each axis, in ``unit``; paper's default (0.06, 0.8) of the image.
        gamma: shape, scale and offset of the size, ``(offset + Gamma(shape, scale))``, the latter two in ``unit``;
            paper's default (2, 0.1, 0.03) of the image.
        unit: what sizes count in: "fraction" of the image (default), "voxel" or "mm", for which bounds and gamma must
            be given, e.g. (10, 40) and (2, 5, 10).
        kind: "box", "ellipsoid" or "either" (default).
        shear_std: standard deviation of the shear, paper's default 0.2.
        max_angle: largest rotation in radians, paper's default pi/2.
        relative_to: "image" (default) or "foreground": what a fraction of the bounds means; the bounding box of the
            largest connected region there, as in the edition of the image-conditioned diffusion paper. A shape of less
            than 0.02^D of the foreground is then drawn again.

    Raises:
        ValueError: on an argument outside its range.
    """

    def __init__(
        self,
        bounds: Sequence[float] | None = None,
        gamma: Sequence[float] | None = None,
        unit: str = "fraction",
        kind: str = "either",
        shear_std: float = 0.2,
        max_angle: float = np.pi / 2,
        relative_to: str = "image",
    ) -> None:
        check_choice("unit", unit, UNITS)
        check_sizes(unit, bounds=bounds, gamma=gamma)
        bounds, gamma = BOUNDS if bounds is None else bounds, GAMMA if gamma is None else gamma
        self.bounds = check_range("bounds", bounds, 0)
        check_choice("kind", kind, ("box", "ellipsoid", "either"))
        check_choice("relative_to", relative_to, ("image", "foreground"))
        if relative_to == "foreground" and unit != "fraction":
            raise ValueError(f'relative_to="foreground" counts in fractions of it, got unit={unit!r}')
        if len(gamma) != 3 or min(gamma[:2]) <= 0:
            raise ValueError(f"gamma must be shape > 0, scale > 0 and offset, got {gamma!r}")
        if shear_std < 0:
            raise ValueError(f"shear_std must be 0 or more, got {shear_std!r}")
        self.gamma = (float(gamma[0]), float(gamma[1]), float(gamma[2]))
        self.unit = unit
        self.kind = kind
        self.shear_std = shear_std
        self.max_angle = max_angle
        self.relative_to = relative_to

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> DeformedShape | None:
        """Draw a shape; None where it is too small to be seen."""
        extent = frame.extent(self.unit)
        lower, upper = self._bounds(frame, extent)
        size = random_size(rng, extent, (lower, upper), self.gamma)
        largest = np.minimum(np.ceil(upper), frame.shape).astype(int)
        spacing = frame.spacing if self.unit == "mm" else None
        shape = deform_shape(rng, size, largest, self.kind, self.shear_std, self.max_angle, spacing)
        if self.relative_to == "foreground" and shape.mask.sum() < _VISIBLE ** len(extent) * frame.voxels:
            return None
        return shape

    def _bounds(self, frame: Frame, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.bounds
        if self.relative_to == "foreground":
            whole = np.array([part.stop - part.start for part in frame.regions[0]])
            lower = np.ceil(low * whole)
            return lower, np.maximum(np.ceil(high * whole), lower + 1)
        return np.round(low * extent), np.maximum(np.round(high * extent), 1)


class RandomBox:
    """Boxes without rotation: FPI's and PII's, half as wide as drawn on either side of their center.

    Args:
        half_width: smallest and largest half width, in ``unit``; published default (0.05, 0.2) of the first axis.
        unit: what it counts in: "fraction" (default), "voxel" or "mm", for which it must be given.
        cube: whether all axes share one half width, in voxels or mm (default, as published); else each its own.
    """

    def __init__(self, half_width: Sequence[float] | None = None, unit: str = "fraction", cube: bool = True) -> None:
        check_choice("unit", unit, UNITS)
        check_sizes(unit, half_width=half_width)
        self.half_width = check_range("half_width", HALF_WIDTH if half_width is None else half_width, 0)
        self.unit = unit
        self.cube = cube

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        """Draw a mask that is true everywhere, its size even along each axis."""
        extent = frame.extent(self.unit)
        if self.cube and self.unit == "fraction":
            extent = np.full_like(extent, extent[0])
        low, high = (np.maximum(np.round(bound * extent), 1).astype(int) for bound in self.half_width)
        if self.cube and self.unit != "mm":
            half = np.full(len(extent), rng.randint(low[0], max(high[0], low[0] + 1)))
        elif self.cube:
            half = np.maximum(np.round(rng.uniform(*self.half_width) * extent), 1).astype(int)
        else:
            half = np.array([rng.randint(a, max(b, a + 1)) for a, b in zip(low, high, strict=True)])
        return np.ones(2 * half, dtype=bool)


class RandomRectangle:
    """Rectangles by area and aspect ratio: CutPaste's (2D).

    Args:
        area: smallest and largest area as fractions of the image's; paper's default (0.02, 0.15).
        aspect: smallest and largest width to height, below and above 1; published code (0.3, 1 / 0.3), paper
            (0.3, 3.3).
        distribution: "log" (default): uniform in the logarithm; "paper": a coin decides between the two sides of 1,
            each uniform.
    """

    def __init__(
        self, area: Sequence[float] = (0.02, 0.15), aspect: Sequence[float] = (0.3, 10 / 3), distribution: str = "log"
    ) -> None:
        self.area = check_range("area", area, 0, 1)
        self.aspect = check_range("aspect", aspect, 0)
        check_positive(aspect=self.aspect[0])
        check_choice("distribution", distribution, ("log", "paper"))
        self.distribution = distribution
        if distribution == "paper":
            check_around_one(aspect)

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        """Draw a mask that is true everywhere, no larger than the image."""
        pixels = rng.uniform(*self.area) * np.prod(frame.shape)
        ratio = self._ratio(rng)
        height, width = np.sqrt(pixels / ratio), np.sqrt(pixels * ratio)
        size = np.clip(np.round([height, width]).astype(int), 1, frame.shape)
        return np.ones(size, dtype=bool)

    def _ratio(self, rng: np.random.RandomState) -> float:
        low, high = self.aspect
        if self.distribution == "log":
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))
        side = (low, 1.0) if rng.rand() < 0.5 else (1.0, high)
        return float(rng.uniform(*side))


def check_around_one(aspect: Sequence[float]) -> None:
    """Raise a ValueError for aspects that are all above or all below 1."""
    if not aspect[0] <= 1 <= aspect[1]:
        raise ValueError(f"aspect must be two numbers, at most and at least 1, got {aspect!r}")
