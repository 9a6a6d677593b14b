# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The patches of one turn as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...functional.boxes import crop_boxes, inside_boxes
from .plan import Patch

_CPU_BUDGET, _GPU_BUDGET = 2**16, 2**24


class PatchBatch:
    """Patches of similar size, one an image, with their boxes padded to a common size.

    Args:
        images: images as they are now (B, C, *S).
        rows: image of each patch, N numbers.
        patches: N patches.
    """

    def __init__(self, images: Tensor, rows: Sequence[int], patches: Sequence[Patch]) -> None:
        self.images = images
        self.patches = patches
        device = images.device
        self.rows = torch.tensor(rows, device=device)
        """(N,)"""
        self.corners = torch.tensor([patch.corner for patch in patches], device=device)
        """lower corners of the boxes in voxels (N, D)"""
        shapes = [patch.mask.shape for patch in patches]
        self.sizes = torch.tensor(shapes, device=device)
        """true sizes of the boxes (N, D)"""
        self.size: tuple[int, ...] = tuple(map(max, *shapes)) if len(shapes) > 1 else tuple(shapes[0])
        """common size P"""

    def __len__(self) -> int:
        return len(self.patches)

    @cached_property
    def boxes(self) -> Tensor:
        """What the images hold in the boxes now, (N, C, *P); the padding holds what is beside."""
        return self.crop()

    @cached_property
    def valid(self) -> Tensor:
        """What is no padding, (N, 1, *P), bool."""
        return inside_boxes(self.sizes, self.size)

    @cached_property
    def masks(self) -> Tensor:
        """Voxels that may change, (N, 1, *P), bool."""
        return self.stack([patch.mask for patch in self.patches])

    @cached_property
    def weights(self) -> Tensor:
        """Shares of foreign content, (N, 1, 1...)."""
        values = torch.tensor([patch.weight for patch in self.patches], dtype=self.images.dtype)
        return values.reshape(-1, *[1] * (self.images.ndim - 1)).to(self.images.device)

    def crop(self, margin: int = 0) -> Tensor:
        """Cut the boxes out of the images with a margin on all sides, (N, C, *(P + 2 margin))."""
        return crop_boxes(self.images, self.rows, self.corners - margin, [length + 2 * margin for length in self.size])

    def stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Stack one array (*P) for each patch, padded with zeros at the ends, (N, 1, *P)."""
        if len(arrays) == 1:
            return torch.from_numpy(arrays[0])[None, None].to(self.images.device)
        whole = np.zeros((len(arrays), 1, *self.size), dtype=arrays[0].dtype)
        for row, array in enumerate(arrays):
            whole[(row, 0, *map(slice, array.shape))] = array
        return torch.from_numpy(whole).to(self.images.device)

    def numbers(self, name: str) -> Tensor:
        """One drawn parameter of all patches, (N, ...), in the images' dtype unless it is an integer."""
        values = torch.from_numpy(np.stack([np.asarray(patch.parameters[name]) for patch in self.patches]))
        return values.to(self.images.device, self.images.dtype if values.is_floating_point() else None)


def patch_batches(images: Tensor, rows: Sequence[int], patches: Sequence[Patch]) -> Iterator[PatchBatch]:
    """Split patches into batches of similar size: little padding, and on a CPU no more than its cache holds."""
    order = np.argsort([patch.mask.size for patch in patches], kind="stable")
    budget = _CPU_BUDGET if images.device.type == "cpu" else _GPU_BUDGET
    chosen: list[int] = []
    largest = np.zeros(images.ndim - 2, dtype=int)
    for place in order:
        grown = np.maximum(largest, patches[place].mask.shape)
        if chosen and np.prod(grown) * images.shape[1] * (len(chosen) + 1) > budget:
            yield PatchBatch(images, [rows[i] for i in chosen], [patches[i] for i in chosen])
            chosen, grown = [], np.array(patches[place].mask.shape)
        chosen.append(int(place))
        largest = grown
    if chosen:
        yield PatchBatch(images, [rows[i] for i in chosen], [patches[i] for i in chosen])
