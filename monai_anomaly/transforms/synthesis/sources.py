# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Where foreign content comes from: an image drawn by its index, and a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable, apply_transform
from torch import Tensor

from ...functional.boxes import box_points, crop_boxes
from ...functional.shapes import random_rotation, transform_points
from ...functional.spline import REACH, sample_in_range, spline_coefficients, spline_crop
from ...utils import Keys
from .placing import PatchBatch, VoxelBatch
from .plan import Frame, Patch


class SourceBox(Protocol):
    """Draws the foreign image of a patch and which part of it goes in; None where there is no such part."""

    def __call__(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw both."""


class SamePlace:
    """The foreign image at the very place of the patch; it must be of the size of the image."""

    def __call__(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the image."""
        source, _, index = frame.draw_source(rng)
        if tuple(source.shape[1:]) != frame.shape:
            raise ValueError(
                f"source {index} is of size {tuple(source.shape[1:])}, but the image of {frame.shape}: "
                "resize the sources to the size of the images"
            )
        patch.source = match_channels(rng, source, frame.channels)
        patch.parameters["source"] = index
        return patch


class RandomSourceBox:
    """A rotated and scaled part of the foreign image, around a voxel of its foreground where it has one (many-tasks).

    Args:
        max_angle: largest rotation in radians, paper's default pi/4.
        scale: mean of the exponential distribution of s - 1, where the part is enlarged by s or by 1/s; default 0.1.
        largest: most that the part may measure as a fraction of the foreign image, default 0.8.
        max_attempts: foreign images tried before the patch is given up, default 10; one whose foreground is empty or
            too near its border for the part makes way for another.
    """

    def __init__(
        self, max_angle: float = np.pi / 4, scale: float = 0.1, largest: float = 0.8, max_attempts: int = 10
    ) -> None:
        if max_angle < 0 or scale < 0 or not 0 < largest <= 1 or max_attempts < 1:
            raise ValueError(
                "max_angle and scale must be 0 or more, largest in (0, 1] and max_attempts 1 or more, got "
                f"{max_angle!r}, {scale!r}, {largest!r}, {max_attempts!r}"
            )
        self.max_angle = max_angle
        self.scale = scale
        self.largest = largest
        self.max_attempts = max_attempts

    def __call__(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the image and the part."""
        for _ in range(self.max_attempts):
            source, foreground, index = frame.draw_source(rng)
            size = np.array(source.shape[1:])
            if len(size) != patch.mask.ndim:
                raise ValueError(f"source {index} is {len(size)}D, but the image {patch.mask.ndim}D")
            matrix = self._matrix(rng, patch.mask.shape, size)
            low, extent = _extent(matrix, patch.mask.shape)
            corner = _corner(rng, extent, size, foreground)
            if corner is None:
                continue
            patch.source = match_channels(rng, source, frame.channels)
            patch.parameters = {
                "source": index,
                "matrix": matrix,
                "offset": corner - low,
                "first": corner,
                "extent": extent,
            }
            return patch
        return None

    def _matrix(self, rng: np.random.RandomState, box: Sequence[int], size: np.ndarray) -> np.ndarray:
        matrix = random_rotation(rng, len(box), self.max_angle)
        _, extent = _extent(matrix, box)
        scale = 1 + rng.exponential(self.scale)
        scale = scale if rng.rand() < 0.5 else 1 / scale
        return np.asarray(matrix * min(scale, float(np.min(self.largest * size / extent))))


class ImageSource:
    """Images to paste from: a list of items with the deterministic transform that loads them, each loaded once.

    Args:
        data: items, e.g. the training section of a datalist, or tensors.
        transform: deterministic transform(s) of an item; None: the items are ready.
        image_key: key of the image in an item.
        foreground_key: key of the mask that the pasted part should lie in; None (default): anywhere.
        cache: whether loaded images are kept in memory, default True.

    Raises:
        ValueError: when ``data`` is empty, or a transform is random: an index must always give the same image.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any] | None = None,
        image_key: str = Keys.IMAGE,
        foreground_key: str | None = None,
        cache: bool = True,
    ) -> None:
        if len(data) == 0:
            raise ValueError("data holds no item to paste from")
        self.transform = None if transform is None else Compose(transform).flatten()
        if self.transform is not None:
            draws = [type(part).__name__ for part in self.transform.transforms if isinstance(part, Randomizable)]
            if draws:
                raise ValueError(f"transform must be deterministic, got {draws}")
        self.data = data
        self.image_key = image_key
        self.foreground_key = foreground_key
        self._kept: dict[int, dict[str, Tensor]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        item = self.data[index]
        if self.transform is not None:
            item = apply_transform(self.transform, item, map_items=False)
        result = {Keys.IMAGE: item[self.image_key] if isinstance(item, dict) else item}
        if self.foreground_key is not None:
            result[Keys.FOREGROUND] = item[self.foreground_key]
        if self._kept is not None:
            self._kept[index] = result
        return result


def match_channels(rng: np.random.RandomState, source: Tensor, channels: int) -> Tensor:
    """Give a foreign image the number of channels wanted: a random subset, or some of its own repeated."""
    source = source.as_tensor() if isinstance(source, MetaTensor) else source
    source = source.to(dtype=source.dtype if source.is_floating_point() else torch.float32)
    have = len(source)
    if have == channels:
        return source
    if have > channels:
        return source[rng.permutation(have)[:channels]]
    return source[np.concatenate([np.arange(have), rng.randint(have, size=channels - have)])]


def source_boxes(batch: PatchBatch) -> Tensor:
    """Parts of the foreign images that go into the patches, padded to the common size, (N, C, *P)."""
    sources = stacked_sources(batch)
    rows = range(len(batch))
    if "matrix" not in batch.patches[0].parameters:
        return crop_boxes(sources, rows, batch.corners, batch.size)
    # cut out what is needed and a margin, so that the spline is that of the whole image
    first, extent = (np.stack([patch.parameters[name] for patch in batch.patches]) for name in ("first", "extent"))
    crops = crop_boxes(sources, rows, first - REACH, spline_crop(extent.max(0) + 1))
    shift = batch.numbers("offset") - torch.from_numpy(first).to(sources) + REACH
    dims = len(batch.size)
    grid = box_points(batch.size, sources).reshape(1, -1, dims)
    points = transform_points(grid, batch.numbers("matrix")) + shift[:, None]
    return sample_in_range(spline_coefficients(crops), points.reshape(len(batch), *batch.size, dims), sources)


def stacked_sources(batch: PatchBatch | VoxelBatch) -> Tensor:
    """Foreign images of the patches, (N, C, *S')."""
    return torch.stack([patch.source for patch in batch.patches if patch.source is not None]).to(batch.images)


def _extent(matrix: np.ndarray, box: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest corner and size of what a box covers in the foreign image."""
    sides = matrix * np.asarray(box)  # each column is one edge of the box in the foreign image
    low = np.floor(np.minimum(sides, 0).sum(1))
    return low, (np.ceil(np.maximum(sides, 0).sum(1)) - low).astype(int)


def _corner(
    rng: np.random.RandomState, extent: np.ndarray, size: np.ndarray, foreground: np.ndarray | None
) -> np.ndarray | None:
    """Draw where the part lies in the foreign image; None where no voxel of the foreground can be its center."""
    last = size - extent
    if last.min() < 0:
        return None
    if foreground is None:
        return rng.randint(0, last + 1)
    half = extent // 2
    inner = tuple(slice(a, a + b + 1) for a, b in zip(half, last, strict=True))
    places = np.flatnonzero(foreground[inner])
    if len(places) == 0:
        return None
    return np.array(np.unravel_index(places[rng.randint(len(places))], tuple(last + 1)))
