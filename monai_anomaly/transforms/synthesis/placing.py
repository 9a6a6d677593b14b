# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The patches of one turn as tensors: as boxes, or as lists of the voxels in their masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...functional.boxes import crop_boxes, inside_boxes, linear_index
from ...functional.spline import REACH, spline_coefficients, spline_crop
from .plan import Patch

_CPU_BUDGET, _GPU_BUDGET = 2**16, 2**24  # voxels that are worked on at once
_WASTE, _SMALL = 1.5, 1024  # padded to true volume of a batch at most; smaller patches cost no less than this


class _Patches:
    """Patches of similar size, one an image.

    Args:
        images: images as they are now (B, C, *S).
        rows: image of each patch, N numbers.
        patches: N patches.
    """

    def __init__(self, images: Tensor, rows: Sequence[int], patches: Sequence[Patch]) -> None:
        self.images = images
        self.rows = list(rows)
        self.patches = patches
        self.corners = np.array([patch.corner for patch in patches])
        """lower corners of the boxes in voxels (N, D)"""
        self.sizes = np.array([patch.mask.shape for patch in patches])
        """true sizes of the boxes (N, D)"""
        self.size: tuple[int, ...] = tuple(self.sizes.max(0).tolist())
        """common size P of the boxes"""

    def __len__(self) -> int:
        return len(self.patches)

    def numbers(self, name: str) -> Tensor:
        """One drawn parameter of all patches, (N, ...), in the images' dtype unless it is an integer."""
        return self.tensor(np.array([patch.parameters[name] for patch in self.patches]))

    def tensor(self, values: np.ndarray) -> Tensor:
        """Bring an array to the images' device, and to their dtype unless it is an integer or bool."""
        if values.dtype == np.float64 and self.images.dtype == torch.float32:
            values = values.astype(np.float32)  # cheaper than to convert the tensor
        result = torch.from_numpy(values)
        return result.to(self.images.device, self.images.dtype if result.is_floating_point() else None)

    def spline(self) -> Tensor:
        """Spline coefficients of the boxes with a margin, as of the whole image; the box begins at ``REACH``."""
        size = spline_crop(self.size)
        return spline_coefficients(crop_boxes(self.images, self.rows, self.corners - REACH, size))


class PatchBatch(_Patches):
    """Patches as boxes padded to a common size."""

    @cached_property
    def boxes(self) -> Tensor:
        """What the images hold in the boxes now, (N, C, *P); the padding holds what is beside."""
        if self.whole:
            return rows_of(self.images, self.rows)
        return crop_boxes(self.images, self.rows, self.corners, self.size)

    @property
    def values(self) -> Tensor:
        """The same, by the name that lists of voxels share."""
        return self.boxes

    @cached_property
    def valid(self) -> Tensor:
        """What is no padding, (N, 1, *P), bool."""
        return inside_boxes(self.sizes, self.size, self.images.device)

    @cached_property
    def masks(self) -> Tensor:
        """Voxels that may change, (N, 1, *P), bool."""
        return self.stack([patch.mask for patch in self.patches])

    @cached_property
    def weights(self) -> Tensor:
        """Shares of foreign content, (N, 1, *P) or to be broadcast to it."""
        shares = [patch.weight for patch in self.patches]
        if any(isinstance(share, np.ndarray) for share in shares):
            maps = [
                np.broadcast_to(x, p.mask.shape).astype(np.float32) for x, p in zip(shares, self.patches, strict=True)
            ]
            return self.stack(maps).to(self.images)
        return torch.tensor(shares).to(self.images).reshape(-1, *[1] * (self.images.ndim - 1))

    @cached_property
    def index(self) -> Tensor:
        """Place of each voxel in its flattened image, (N, prod P); that of the first voxel for padding."""
        index = linear_index(self.corners, self.size, self.images.shape[2:], self.images.device)
        return index if len(self) == 1 else torch.where(self.valid.flatten(1), index, index[:, :1])

    @cached_property
    def whole(self) -> bool:
        """Whether every box is a whole image."""
        return bool((self.sizes == np.array(self.images.shape[2:])).all())

    def take(self, images: Tensor) -> Tensor:
        """Values of other maps of the images (B, K, *S) in the boxes, (N, K, *P)."""
        if self.whole:
            return rows_of(images, self.rows)
        return _take(images, self.rows, self.index).reshape(len(self), -1, *self.size)

    def put(self, images: Tensor, boxes: Tensor) -> None:
        """Write boxes (N, K, *P) into images (B, K, *S), in place."""
        if self.whole:
            images[self.rows] = boxes
        else:
            values = boxes.flatten(2)
            if len(self) > 1:
                values = torch.where(self.valid.flatten(2), values, values[..., :1])
            _put(images, self.rows, self.index, values)

    def stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Stack one array (*P) for each patch, padded with zeros at the ends, (N, 1, *P)."""
        if len(arrays) == 1:
            return torch.from_numpy(arrays[0])[None, None].to(self.images.device)
        whole = np.zeros((len(arrays), 1, *self.size), dtype=arrays[0].dtype)
        for row, array in enumerate(arrays):
            place: tuple[Any, ...] = (row, 0, *map(slice, array.shape))
            whole[place] = array
        return torch.from_numpy(whole).to(self.images.device)


class VoxelBatch(_Patches):
    """Patches as lists of the M voxels in their masks, padded to a common length by repeating the first."""

    @cached_property
    def points(self) -> Tensor:
        """Coordinates in the box, (N, M, D)."""
        return self.stack([patch.voxels for patch in self.patches]).to(self.images)

    @cached_property
    def values(self) -> Tensor:
        """What the images hold there now, (N, C, M)."""
        return self.take(self.images)

    @cached_property
    def masks(self) -> Tensor:
        """Voxels that may change, (N, 1, M), bool: all, the padding being one of them again."""
        return torch.ones((len(self), 1, self.index.shape[1]), dtype=torch.bool, device=self.images.device)

    @property
    def valid(self) -> Tensor:
        """What may be written, the same."""
        return self.masks

    @cached_property
    def named_once(self) -> Tensor:
        """Which are no padding, (N, 1, M), bool: for means and the like."""
        counts = np.array([[len(patch.voxels)] for patch in self.patches])
        return torch.from_numpy(np.arange(counts.max()) < counts)[:, None].to(self.images.device)

    @cached_property
    def index(self) -> Tensor:
        """Place of each voxel in its flattened image, (N, M)."""
        shape = self.images.shape[2:]
        strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
        return self.stack([(patch.voxels + patch.corner) @ strides for patch in self.patches])

    @cached_property
    def weights(self) -> Tensor:
        """Shares of foreign content, (N, 1, M)."""
        voxels = [np.broadcast_to(p.weight, p.mask.shape)[p.mask].astype(np.float32) for p in self.patches]
        return self.stack(voxels)[:, None].to(self.images)

    def take(self, images: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Values of other maps of the images (B, K, *S), or of other images by their rows, at the voxels, (N, K, M)."""
        return _take(images, self.rows if rows is None else rows, self.index)

    def put(self, images: Tensor, values: Tensor) -> None:
        """Write values (N, K, M) into images (B, K, *S), in place."""
        _put(images, self.rows, self.index, values)

    def stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Stack one list (m, ...) for each patch, padded by its first element, (N, M, ...)."""
        length = max(map(len, arrays))
        padded = [np.concatenate([a, np.broadcast_to(a[:1], (length - len(a), *a.shape[1:]))]) for a in arrays]
        return torch.from_numpy(np.stack(padded)).to(self.images.device)


def patch_batches(
    images: Tensor, rows: Sequence[int], patches: Sequence[Patch], voxels: bool = False
) -> list[PatchBatch] | list[VoxelBatch]:
    """Split patches into batches of similar size: little padding, and on a CPU no more than its cache holds.

    Args:
        images: images as they are now (B, C, *S).
        rows: image of each patch.
        patches: at most one an image.
        voxels: whether the patches become lists of voxels, else boxes.
    """
    budget = (_CPU_BUDGET if images.device.type == "cpu" else _GPU_BUDGET) // images.shape[1]
    sizes = [(len(patch.voxels),) if voxels else patch.mask.shape for patch in patches]
    sources = [None if patch.source is None else patch.source.shape for patch in patches]  # of one size in a batch
    groups: list[tuple[list[int], list[int], int]] = []
    for number in sorted(range(len(patches)), key=lambda i: -math.prod(sizes[i])):
        own = max(math.prod(sizes[number]), _SMALL)
        for place, (members, largest, used) in enumerate(groups):
            grown = [max(a, b) for a, b in zip(largest, sizes[number], strict=True)]
            padded = math.prod(grown) * (len(members) + 1)
            fits = padded <= budget and padded <= _WASTE * (used + own)
            if fits and sources[number] == sources[members[0]]:
                groups[place] = ([*members, number], grown, used + own)
                break
        else:
            groups.append(([number], list(sizes[number]), own))
    kind = VoxelBatch if voxels else PatchBatch
    return [kind(images, [rows[i] for i in members], [patches[i] for i in members]) for members, _, _ in groups]  # type: ignore[return-value]


def images_at_once(images: Tensor) -> int:
    """Number of whole images that are worked on at once: on a CPU no more than its cache holds."""
    if images.device.type != "cpu":
        return len(images)
    return max(1, _CPU_BUDGET // math.prod(images.shape[1:]))


def rows_of(images: Tensor, rows: Sequence[int]) -> Tensor:
    """Some of the images; one alone is not copied."""
    return images[rows[0] : rows[0] + 1] if len(rows) == 1 else images[list(rows)]


def _take(images: Tensor, rows: Sequence[int], index: Tensor) -> Tensor:
    """Values (N, K, V) of images at the voxels (N, V)."""
    flat = images.flatten(2)
    if len(rows) == 1:
        return rows_of(flat, rows).index_select(2, index[0])
    return flat[torch.tensor(rows, device=images.device)[:, None], :, index].movedim(-1, 1)


def _put(images: Tensor, rows: Sequence[int], index: Tensor, values: Tensor) -> None:
    """Write values (N, K, V) at the voxels (N, V); one that is named twice must have one value."""
    flat = images.view(*images.shape[:2], -1)
    if len(rows) == 1:
        rows_of(flat, rows).index_copy_(2, index[0], values)
        return
    flat[torch.tensor(rows, device=images.device)[:, None], :, index] = values.movedim(1, -1)
