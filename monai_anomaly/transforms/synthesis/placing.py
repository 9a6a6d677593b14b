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

    @cached_property
    def weights(self) -> Tensor:
        """Shares of foreign content, (N, 1, 1...)."""
        values = torch.tensor([patch.weight for patch in self.patches], dtype=self.images.dtype)
        return values.reshape(-1, *[1] * (self.images.ndim - 1)).to(self.images.device)

    def numbers(self, name: str) -> Tensor:
        """One drawn parameter of all patches, (N, ...), in the images' dtype unless it is an integer."""
        values = torch.from_numpy(np.stack([np.asarray(patch.parameters[name]) for patch in self.patches]))
        return values.to(self.images.device, self.images.dtype if values.is_floating_point() else None)

    def spline(self) -> Tensor:
        """Spline coefficients of the boxes with a margin, as of the whole image; the box begins at ``REACH``."""
        size = spline_crop(self.size)
        return spline_coefficients(crop_boxes(self.images, self.rows, self.corners - REACH, size))


class PatchBatch(_Patches):
    """Patches as boxes padded to a common size."""

    @cached_property
    def boxes(self) -> Tensor:
        """What the images hold in the boxes now, (N, C, *P); the padding holds what is beside."""
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
    def index(self) -> Tensor:
        """Place of each voxel in its flattened image, (N, prod P)."""
        return linear_index(self.corners, self.size, self.images.shape[2:], self.images.device)

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
        return self.take(self.images, self.rows)

    @cached_property
    def valid(self) -> Tensor:
        """What is no padding, (N, 1, M), bool."""
        counts = np.array([[len(patch.voxels)] for patch in self.patches])
        return torch.from_numpy(np.arange(counts.max()) < counts)[:, None].to(self.images.device)

    @property
    def masks(self) -> Tensor:
        """Voxels that may change, (N, 1, M), bool."""
        return self.valid

    @cached_property
    def index(self) -> Tensor:
        """Place of each voxel in its flattened image, (N, M)."""
        shape = self.images.shape[2:]
        strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
        return self.stack([(patch.voxels + patch.corner) @ strides for patch in self.patches])

    @cached_property
    def weights(self) -> Tensor:
        """Shares of foreign content, (N, 1, 1)."""
        return super().weights.reshape(-1, 1, 1)

    def take(self, images: Tensor, rows: Sequence[int]) -> Tensor:
        """Values of images at the voxels, (N, C, M)."""
        chosen = images.flatten(2)[list(rows)] if len(rows) > 1 else images[rows[0]].flatten(1)[None]
        return chosen.gather(2, self.index[:, None].expand(-1, images.shape[1], -1))

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
    groups: list[tuple[list[int], list[int], int]] = []
    for number in sorted(range(len(patches)), key=lambda i: -math.prod(sizes[i])):
        own = max(math.prod(sizes[number]), _SMALL)
        for place, (members, largest, used) in enumerate(groups):
            grown = [max(a, b) for a, b in zip(largest, sizes[number], strict=True)]
            padded = math.prod(grown) * (len(members) + 1)
            if padded <= budget and padded <= _WASTE * (used + own):
                groups[place] = ([*members, number], grown, used + own)
                break
        else:
            groups.append(([number], list(sizes[number]), own))
    kind = VoxelBatch if voxels else PatchBatch
    return [kind(images, [rows[i] for i in members], [patches[i] for i in members]) for members, _, _ in groups]  # type: ignore[return-value]
