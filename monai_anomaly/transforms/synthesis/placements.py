# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Where anomalies go: parts that draw the lower corner of a mask's box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..checks import check_choice, check_positive
from .plan import Frame, volume


class UniformPlacement:
    """Uniform over all positions inside the image where enough of the mask lies in the foreground.

    Args:
        min_overlap: fraction of the mask that must lie in the foreground, in [0, 1]; default 0.5. Without a foreground
            every position does.
        decay: factor on ``min_overlap`` after every ``decay_every`` failed attempts, default 1 (none).
        decay_every: see there.
        near: "image" (default): anywhere; "region": the box touches the bounding box of a region of the foreground,
            drawn with a probability proportional to that box's volume.
        max_attempts: positions tried before the mask is given up; default 200.
    """

    def __init__(
        self,
        min_overlap: float = 0.5,
        decay: float = 1.0,
        decay_every: int = 1000,
        near: str = "image",
        max_attempts: int = 200,
    ) -> None:
        for name, value in (("min_overlap", min_overlap), ("decay", decay)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value!r}")
        check_choice("near", near, ("image", "region"))
        check_positive(decay_every=decay_every, max_attempts=max_attempts)
        self.min_overlap = min_overlap
        self.decay = decay
        self.decay_every = decay_every
        self.near = near
        self.max_attempts = max_attempts

    def __call__(self, rng: np.random.RandomState, mask: np.ndarray, frame: Frame) -> tuple[int, ...] | None:
        """Draw a corner; None where the mask is larger than the image or found no place."""
        last = np.array(frame.shape) - mask.shape
        if last.min() < 0:
            return None
        first = np.zeros_like(last)
        if self.near == "region":
            first, last = _around_region(rng, mask.shape, frame, last)
        if frame.foreground is None:
            return tuple(rng.randint(first, last + 1).tolist())
        needed, voxels = self.min_overlap, int(mask.sum())
        for attempt in range(1, self.max_attempts + 1):
            corner = rng.randint(first, last + 1)
            place = tuple(slice(low, low + n) for low, n in zip(corner, mask.shape, strict=True))
            if np.count_nonzero(frame.foreground[place] & mask) >= needed * voxels:
                return tuple(corner.tolist())
            if attempt % self.decay_every == 0:
                needed *= self.decay
        return None


class CenterPlacement:
    """The center of the box is uniform in the core of the image along each axis; the box may leave the image.

    Args:
        core: width of the core as a fraction of the image, in (0, 1]; FPI's default 0.8, for brains 0.5.
        in_foreground: whether the center must lie in the foreground, where there is one; default True.
    """

    def __init__(self, core: float = 0.8, in_foreground: bool = True) -> None:
        if not 0 < core <= 1:
            raise ValueError(f"core must be in (0, 1], got {core!r}")
        self.core = core
        self.in_foreground = in_foreground

    def __call__(self, rng: np.random.RandomState, mask: np.ndarray, frame: Frame) -> tuple[int, ...] | None:
        """Draw a corner; None where no center of the core lies in the foreground."""
        shape = np.array(frame.shape)
        margin = np.round(shape * (1 - self.core) / 2).astype(int)
        last = np.maximum(shape - margin, margin + 1)
        if not self.in_foreground or frame.foreground is None:
            center = rng.randint(margin, last)
        else:
            core = frame.foreground[tuple(slice(a, b) for a, b in zip(margin, last, strict=True))]
            places = np.flatnonzero(core)
            if len(places) == 0:
                return None
            center = margin + np.unravel_index(places[rng.randint(len(places))], core.shape)
        return tuple((center - np.array(mask.shape) // 2).tolist())


class ForegroundPlacement:
    """The center of the box is a voxel of the foreground, each as likely as the next; the box may leave the image."""

    def __call__(self, rng: np.random.RandomState, mask: np.ndarray, frame: Frame) -> tuple[int, ...] | None:
        """Draw a corner; without a foreground any voxel may be the center."""
        if frame.foreground is None:
            center = rng.randint(0, frame.shape)
        else:
            places = np.flatnonzero(frame.foreground)
            center = np.array(np.unravel_index(places[rng.randint(len(places))], frame.shape))
        return tuple((center - np.array(mask.shape) // 2).tolist())


class FixedPlacement:
    """The mask is of the size of the image, and stays where it is."""

    def __call__(self, rng: np.random.RandomState, mask: np.ndarray, frame: Frame) -> tuple[int, ...] | None:
        """Return the origin."""
        return (0,) * mask.ndim


def _around_region(
    rng: np.random.RandomState, size: Sequence[int], frame: Frame, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First and last corner at which a box touches the bounding box of a region and stays inside the image."""
    volumes = np.array([volume(box) for box in frame.regions], dtype=float)
    region = frame.regions[rng.choice(len(volumes), p=volumes / volumes.sum())]
    lower = np.array([part.start for part in region]) - size + 1
    upper = np.array([part.stop for part in region]) - 1
    return np.clip(lower, 0, last), np.clip(upper, 0, last)
