# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Near-duplicate images: copies that were mirrored, turned, stretched, sharpened, or changed in contrast.

Images are compared by the correlation of their band-passed thumbnails, in two views (whole, and cut to the foreground,
which undoes margins), mirrored along each axis and stretched a little, or in quarter turns and transposed. What all
images of a set share, such as the round edge of a fundus photograph, is taken out first, else all of them would look
alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import combinations, product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .baselines import otsu_thresholds

# Measured on the sets that filter and value were chosen on, so somewhat optimistic. 276 brain MRI without tumor, whose
# clusters of copies are known: all images with a copy are found (98.8 % without the quarter turns), and no pair of
# different clusters. Images taken for another patient's copy: 0 of 418 and of 976 chest radiographs, 0 of 471 fundus
# photographs, but 6 % of 883 healthy brain FLAIR slices, the same ones with and without turns. At 0.95: 97.0 % found,
# 0.2 % of those slices.
THRESHOLD = 0.9
STRETCHES = (0.93, 1.07)
_BLOCK = 1024
# Relative to the thumbnail's side: 1 and 4 pixels of 64. Coarser bands see the anatomy that all chests share, finer
# ones the noise that resampling destroys.
_FINE, _COARSE = 1 / 64, 1 / 16
# The shared part is the mean times n / (n + 32): the mean of a handful of images is mostly these images themselves.
_SHRINKAGE = 32.0
_EDGE_SHARE = 0.02


class NearDuplicates(NamedTuple):
    """Result of :meth:`DuplicateSearch.find`.

    Args:
        reference: (M,) position of the most similar reference of each query.
        similarity: (M,) its similarity in [-1, 1].
        matches: (M,) number of references at or above the threshold.
    """

    reference: Tensor
    similarity: Tensor
    matches: Tensor


class DuplicateSearch:
    """Find near-duplicates among the images of one data set.

    The similarity of two thumbnails is the largest cosine, over views and poses, of their descriptors
    ``(d(x) - m) / ||d(x) - m||``, where ``d`` is the difference of two Gaussian blurs (sigma 1 and 4 pixels of 64) at
    half resolution with unit norm, and ``m`` the shrunk mean of ``d`` over the set. Poses are mirror images in every
    stretch, and, unstretched, the quarter turns and transposes of every plane of two axes.

    Args:
        thumbnails: (N, *S) of all images of the set, 2D or 3D with equal even sides.
        threshold: similarity from which two images count as near-duplicates, in (0, 1).
    """

    def __init__(self, thumbnails: Tensor, threshold: float = THRESHOLD) -> None:
        sides = set(thumbnails.shape[1:])
        if thumbnails.ndim not in (3, 4) or len(sides) != 1 or min(sides) % 2:
            raise ValueError(f"thumbnails must be (N, S, S) or (N, S, S, S), S even, got {tuple(thumbnails.shape)}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        self.threshold = threshold
        images = thumbnails.to(torch.float32)
        axes = images.ndim - 1
        one = (1.0,) * axes
        each_axis = [one[:axis] + (s,) + one[axis + 1 :] for axis, s in product(range(axes), STRETCHES)]
        all_axes = [(s,) * axes for s in STRETCHES]
        # the view of the foreground needs no stretches: its box follows them by itself
        self._views = [
            _View([_describe(images, stretch) for stretch in (one, *each_axis, *all_axes)]),
            _View([_describe(_cut(images, foreground_boxes(images)), one)]),
        ]

    def find(self, queries: Tensor, references: Tensor) -> NearDuplicates:
        """Find the most similar reference of each query, in blocks that bound the memory.

        Args:
            queries: (M,) positions in the set, long.
            references: (K,) positions in the set, long; at least one.
        """
        if len(references) == 0:
            raise ValueError("references must hold at least one position, got none")
        best = torch.full((len(queries),), -1.0)
        index = references[:1].repeat(len(queries))
        count = torch.zeros(len(queries), dtype=torch.long)
        for first in range(0, len(references), _BLOCK):
            block = references[first : first + _BLOCK]
            similarity = self.similarities(queries, block)
            value, position = similarity.max(1)
            index = torch.where(value > best, block[position], index)
            best = torch.maximum(best, value)
            count += (similarity >= self.threshold).sum(1)
        return NearDuplicates(index, best, count)

    def similarities(self, queries: Tensor, references: Tensor) -> Tensor:
        """Return the similarity of each query with each reference, (M, K)."""
        similarity = torch.full((len(queries), len(references)), -1.0)
        for view in self._views:
            left = view.centered(view.descriptors[0][queries])
            for pose in view.poses(references):
                torch.maximum(similarity, left @ view.centered(pose).T, out=similarity)
        return similarity


class _View:
    """One way to look at the images: their descriptors, each stretch apart, and what all of them share."""

    def __init__(self, descriptors: list[Tensor]) -> None:
        n = len(descriptors[0])
        self.descriptors = descriptors
        self.shared = descriptors[0].mean(0) * (n / (n + _SHRINKAGE))

    def poses(self, positions: Tensor) -> Iterator[Tensor]:
        """Yield the descriptors of these images in every pose that a copy may have."""
        for descriptors in self.descriptors:
            yield from _mirrored(descriptors[positions])
        # who turns a picture does not stretch it as well: without stretches the turns cost 2/5 more in 2D, not 8/3
        yield from _turned(self.descriptors[0][positions])

    def centered(self, descriptors: Tensor) -> Tensor:
        return F.normalize((descriptors - self.shared).flatten(1), dim=1, eps=1e-12)


def foreground_boxes(thumbnails: Tensor) -> Tensor:
    """Return the box of the foreground of each thumbnail, in shares of its sides.

    Foreground is what is brighter than half of Otsu's threshold above the minimum; lines of an axis with at most 2 % of
    it are left out.

    Args:
        thumbnails: (N, *S).

    Returns:
        (N, axes, 2) start and end in [0, 1]; (0, 1) where nothing is found.
    """
    flat = thumbnails.flatten(1)
    low = flat.amin(1)
    cut = low + 0.5 * (otsu_thresholds(thumbnails) - low)
    foreground = (thumbnails > cut.view(-1, *[1] * (thumbnails.ndim - 1))).to(torch.float32)
    boxes = []
    for axis in range(1, thumbnails.ndim):
        others = [a for a in range(1, thumbnails.ndim) if a != axis]
        found = foreground.mean(others) > _EDGE_SHARE  # (N, S)
        size = found.shape[1]
        start = found.to(torch.int8).argmax(1)
        end = size - found.flip(1).to(torch.int8).argmax(1)
        some = found.any(1)
        boxes.append(torch.stack([torch.where(some, start, 0), torch.where(some, end, size)], 1) / size)
    return torch.stack(boxes, 1)


def _describe(images: Tensor, stretch: tuple[float, ...]) -> Tensor:
    """Return the band-passed images, (N, *(S / 2)), each with unit norm.

    Stretching, blurring and halving are linear and separable, so together they are one small matrix an axis.
    """
    size = images.shape[1]
    stretches = [_resampling(torch.tensor([[0.5 - s / 2, 0.5 + s / 2]]), size)[0] for s in stretch]
    fine, coarse = (
        reduce(lambda x, axis: _along(x, blur @ stretches[axis], axis + 1), range(len(stretch)), images)
        for blur in (_half_blur(size, _FINE * size), _half_blur(size, _COARSE * size))
    )
    band = (fine - coarse).flatten(1)
    band = F.normalize(band - band.mean(1, keepdim=True), dim=1, eps=1e-12)
    return band.view_as(fine)


def _cut(images: Tensor, boxes: Tensor) -> Tensor:
    """Return the content of the boxes (N, axes, 2), resampled to the size of the images."""
    parts = []
    for part, spans in zip(images.split(_BLOCK), boxes.split(_BLOCK), strict=True):
        for axis in range(images.ndim - 1):
            part = _along(part, _resampling(spans[:, axis], images.shape[1]), axis + 1)
        parts.append(part)
    return torch.cat(parts)


def _along(images: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Apply one matrix (T, S), or one for each image (N, T, S), to one axis of the images (N, *S)."""
    moved = images.movedim(axis, -1)
    if matrix.ndim == 2:
        # one product of contiguous rows: ten times faster than a batch of strided ones
        rows = moved.reshape(-1, images.shape[axis]) @ matrix.T
        return rows.view(*moved.shape[:-1], -1).movedim(-1, axis)
    flat = moved.flatten(1, -2) @ matrix.transpose(1, 2)
    return flat.view(*moved.shape[:-1], -1).movedim(-1, axis)


def _half_blur(size: int, sigma: float) -> Tensor:
    """Return the (size / 2, size) matrix of a Gaussian blur and the mean of pairs, each row with sum one."""
    x = torch.arange(size, dtype=torch.float32)
    weights = torch.exp(-((x[:, None] - x) ** 2) / (2 * sigma**2))
    weights[weights < 1e-7] = 0  # denormal numbers would slow the products down
    weights = weights / weights.sum(1, keepdim=True)
    return (weights[0::2] + weights[1::2]) / 2


def _resampling(spans: Tensor, size: int) -> Tensor:
    """Return the (B, size, size) matrices of linear interpolation on the spans (B, 2), clamped at the border."""
    share = (torch.arange(size) + 0.5) / size
    at = spans[:, :1] + (spans[:, 1:] - spans[:, :1]) * share
    at = (at * size - 0.5).clamp(0, size - 1)
    return (1 - (at[:, :, None] - torch.arange(size)).abs()).clamp_min(0)


def _mirrored(descriptors: Tensor) -> list[Tensor]:
    """Return the descriptors, and mirrored along each one axis: files store axes in different orders."""
    return [descriptors] + [descriptors.flip(axis) for axis in range(1, descriptors.ndim)]


def _turned(descriptors: Tensor) -> Iterator[Tensor]:
    """Yield the descriptors turned by 90, 180 and 270 degrees and transposed, in every plane of two axes."""
    for plane in combinations(range(1, descriptors.ndim), 2):
        for quarters in (1, 2, 3):
            yield descriptors.rot90(quarters, plane)
        transposed = descriptors.transpose(*plane)
        yield transposed
        yield transposed.flip(plane)
