# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What the parts of a synthetic anomaly tell each other: the image they are made for, and the anomaly as drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ...functional.shapes import DeformedShape
from ...utils import Keys

UNITS = ("fraction", "voxel", "mm")


class Sources(Protocol):
    """Images to take foreign content from, by index: tensors (C, *S), or dicts with "image" and maybe "foreground"."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass
class Frame:
    """The image that an anomaly is drawn for."""

    image: Tensor
    """(C, *S), float."""
    foreground: np.ndarray | None = None
    """where anomalies may be (*S), bool; None: everywhere."""
    sources: Sources | None = None
    spacing: tuple[float, ...] | None = None
    """size of a voxel along each axis in millimeters, where known."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """smallest and largest possible intensity."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of the image in voxels (D numbers)."""
        return tuple(self.image.shape[1:])

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.image.shape[0])

    @property
    def data_range(self) -> float:
        """Largest minus smallest possible intensity."""
        return self.value_range[1] - self.value_range[0]

    @cached_property
    def voxels(self) -> int:
        """Number of voxels of the foreground."""
        return int(np.prod(self.shape) if self.foreground is None else self.foreground.sum())

    @cached_property
    def regions(self) -> list[tuple[slice, ...]]:
        """Bounding boxes of the connected regions of the foreground, the largest first; the image if there are none."""
        if self.foreground is None:
            return [tuple(slice(0, length) for length in self.shape)]
        labels, _ = ndimage.label(self.foreground)
        boxes = [box for box in ndimage.find_objects(labels) if box is not None]
        return sorted(boxes, key=lambda box: -volume(box))

    def extent(self, unit: str) -> np.ndarray:
        """Return what one unit of size measures along each axis, in voxels (D,).

        Args:
            unit: "fraction" of the image, "voxel" or "mm".

        Raises:
            ValueError: for "mm" where the image has no spacing.
        """
        if unit == "fraction":
            return np.asarray(self.shape, dtype=float)
        if unit == "voxel":
            return np.ones(len(self.shape))
        if self.spacing is None:
            raise ValueError(
                'unit="mm" needs a MetaTensor whose affine has as many axes as the image: load it with LoadImage, take '
                "a slice with SpatialCrop and SqueezeDim instead of an index, or give voxels"
            )
        return 1 / np.asarray(self.spacing)

    def draw_source(self, rng: np.random.RandomState) -> tuple[Tensor, np.ndarray | None, int]:
        """Draw a foreign image (C', *S') by its index; return it, its foreground (*S') if it has one, the index."""
        if self.sources is None or len(self.sources) == 0:
            raise ValueError(
                "this corruption pastes from another image: give source= (a dataset), the sample's source_key, or a "
                "batch of at least two images"
            )
        index = int(rng.randint(len(self.sources)))
        item = self.sources[index]
        image, foreground = (
            (item, None)
            if not isinstance(item, dict)
            else (
                item.get(Keys.IMAGE),
                item.get(Keys.FOREGROUND),
            )
        )
        if not isinstance(image, Tensor):
            raise ValueError(
                f"source {index} must be a tensor or a dict with one as image, got {type(image).__name__}: put a "
                "datalist and the transforms that load it into an ImageSource"
            )
        low, high = torch.aminmax(image) if image.numel() else (torch.inf, torch.inf)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"source {index} is empty or holds NaN or infinite values: leave it out")
        mask = None if foreground is None else to_mask(foreground)
        if mask is not None and mask.shape != tuple(image.shape[1:]):
            raise ValueError(
                f"the foreground of source {index} is of size {mask.shape}, but its image of {tuple(image.shape[1:])}"
            )
        return image, mask, index


@dataclass
class Patch:
    """One anomaly as drawn: which voxels of which box may change, and whatever the corruptor needs to know."""

    corner: tuple[int, ...]
    """lower corner of the box in the image, in voxels."""
    mask: np.ndarray
    """voxels that may change (*P), bool; the box lies inside the image."""
    shape: DeformedShape | None = None
    """the shape that the mask was made from, if it was one, uncut."""
    weight: float | np.ndarray = 1.0
    """share of foreign content in [0, 1], of all voxels or of each (*P)."""
    source: Tensor | None = None
    """foreign image (C, *S'), channels as in the image."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """what the corruptor drew: numbers and arrays."""
    inner: tuple[slice, ...] | None = None
    """the box as drawn, where the corruptor has added voxels around it; None: all of the box."""

    @cached_property
    def voxels(self) -> np.ndarray:
        """Coordinates of the mask's voxels in the box, (M, D); the mask must stay as it is."""
        return np.argwhere(self.mask)


@dataclass
class Plan:
    """All anomalies of one image, drawn and not yet made."""

    patches: list[Patch]
    task: int = 0
    """number of the corruption."""
    branch: int = 0
    """place of the corruption in a mixture."""

    def describe(self) -> list[dict[str, Any]]:
        """Return what was drawn as plain numbers, one dict an anomaly."""
        return [
            {
                **_described_box(p),
                "weight": float(np.max(p.weight)),
                **_plain(p.parameters),
            }
            for p in self.patches
        ]


Foreground = Callable[[Tensor], Tensor]


def volume(box: Sequence[slice]) -> int:
    """Number of voxels of a box."""
    return int(np.prod([part.stop - part.start for part in box]))


def to_mask(foreground: Any) -> np.ndarray:
    """Return a foreground (1, *S) or (C, *S), array or tensor, as a bool array (*S): any channel above 0."""
    array = foreground.detach().cpu().numpy() if isinstance(foreground, Tensor) else np.asarray(foreground)
    return np.asarray((array > 0).any(0))


def _described_box(patch: Patch) -> dict[str, Any]:
    """Lower corner and size of a patch as drawn."""
    inner = patch.inner or tuple(slice(0, length) for length in patch.mask.shape)
    return {
        "corner": [int(low + part.start) for low, part in zip(patch.corner, inner, strict=True)],
        "size": [part.stop - part.start for part in inner],
    }


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Small numbers and lists only: fields and images would make the description larger than the anomaly."""
    result: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, np.ndarray) and value.size <= 16:
            result[name] = value.tolist()
        elif isinstance(value, np.generic):
            result[name] = value.item()
        elif isinstance(value, (bool, int, float, str, list, tuple)):
            result[name] = list(value) if isinstance(value, tuple) else value
    return result
