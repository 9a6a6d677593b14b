# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Near-duplicate images: copies that were mirrored, turned, stretched, sharpened, or changed in contrast.

Images are compared by the correlation of their band-passed thumbnails, in two views (whole, and cut to the foreground,
which undoes margins), mirrored along each axis and stretched a little, or in quarter turns and transposed. What all
images of a set share, such as the round edge of a fundus photograph, is taken out first, else all of them would look
alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import combinations, product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .baselines import otsu_thresholds
from .screening import Screen, products_above, stacked

# Measured on the sets that filter and value were chosen on, so somewhat optimistic. 276 brain MRI without tumor, whose
# clusters of copies are known: all images with a copy are found (98.8 % without the quarter turns), and no pair of
# different clusters. Images taken for another patient's copy: 0 of 418 and of 976 chest radiographs, 0 of 471 fundus
# photographs, but 6 % of 883 healthy brain FLAIR slices, the same ones with and without turns. At 0.95: 97.0 % found,
# 0.2 % of those slices.
THRESHOLD = 0.9
STRETCHES = (0.93, 1.07)
_BLOCK = 1024
_QUERY_VALUES = 1 << 24  # of the descriptors of the queries at a time: 64 MiB
_SAMPLE = 1024
# Relative to the thumbnail's side: 1 and 4 pixels of 64. Coarser bands see the anatomy that all chests share, finer
# ones the noise that resampling destroys.
_FINE, _COARSE = 1 / 64, 1 / 16
# The shared part is the mean times n / (n + 32): the mean of a handful of images is mostly these images themselves.
_SHRINKAGE = 32.0
_EDGE_SHARE = 0.02


class NearDuplicates(NamedTuple):
    """Result of :meth:`DuplicateSearch.find`.

    Args:
        reference: (M,) position of the most similar near-duplicate of each query, -1 where there is none.
        similarity: (M,) its similarity, -1 where there is none.
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

    Descriptors are made block by block and not kept, and pairs that :mod:`.screening` rules out are not compared, so a
    set of 100,000 images needs little more memory than its thumbnails.

    Args:
        thumbnails: N thumbnails (*S), or one tensor (N, *S), of all images of the set, 2D or 3D with equal even sides.
        threshold: similarity from which two images count as near-duplicates, in (0, 1).
    """

    def __init__(self, thumbnails: Tensor | Sequence[Tensor], threshold: float = THRESHOLD) -> None:
        shape = thumbnails[0].shape
        if len(shape) not in (2, 3) or len(set(shape)) != 1 or shape[0] % 2:
            raise ValueError(
                f"thumbnails must be (N, S, S) or (N, S, S, S), S even, got {(len(thumbnails), *map(int, shape))}"
            )
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        self.threshold = threshold
        self._thumbnails = thumbnails
        axes = len(shape)
        one = (1.0,) * axes
        each_axis = [one[:axis] + (s,) + one[axis + 1 :] for axis, s in product(range(axes), STRETCHES)]
        all_axes = [(s,) * axes for s in STRETCHES]
        # the view of the foreground needs no stretches: its box follows them by itself
        self._views = [_View([one, *each_axis, *all_axes]), _View([one], cut=True)]
        every = torch.arange(len(thumbnails))
        for view in self._views:
            total = sum(view.described(self._images(block)).sum(0) for block in every.split(_BLOCK))
            view.shared = torch.as_tensor(total) / (len(every) + _SHRINKAGE)
            sample = every[:: max(1, len(every) // _SAMPLE)][:_SAMPLE]
            view.screen = Screen(view.centered(view.described(self._images(sample))))

    def _images(self, positions: Tensor) -> Tensor:
        return stacked(self._thumbnails, positions).to(torch.float32)

    def find(self, queries: Tensor, references: Tensor) -> NearDuplicates:
        """Find the near-duplicates of each query, in blocks that bound the memory.

        Args:
            queries: (M,) positions in the set, long.
            references: (K,) positions in the set, long; at least one.
        """
        if len(references) == 0:
            raise ValueError("references must hold at least one position, got none")
        values = self._thumbnails[0].numel() >> self._thumbnails[0].ndim  # of a descriptor, which has half the sides
        results = [self._find(block, references) for block in queries.split(max(1, _QUERY_VALUES // values))]
        return NearDuplicates(*map(torch.cat, zip(*results, strict=True)))

    def _find(self, queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        asked = self._asked(queries)
        best = torch.full((len(queries),), -1.0)
        index = torch.full((len(queries),), -1)
        count = torch.zeros(len(queries), dtype=torch.long)
        for block in references.split(_BLOCK):
            similarity = self._compared(asked, self._images(block), len(queries))
            value, position = similarity.max(1)
            better = (value >= self.threshold) & (value > best)
            index = torch.where(better, block[position], index)
            best = torch.where(better, value, best)
            count += (similarity >= self.threshold).sum(1)
        return index, best, count

    def _asked(self, queries: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Centered descriptors of the queries and their coordinates, for each view."""
        images = self._images(queries)
        left = [view.centered(view.described(images)) for view in self._views]
        return [(vectors, view.screen.coordinates(vectors)) for view, vectors in zip(self._views, left, strict=True)]

    def _compared(self, asked: list[tuple[Tensor, Tensor]], images: Tensor, number: int) -> Tensor:
        """Similarities (M, K) of the pairs that reach the threshold; -1 or less than the threshold elsewhere."""
        similarity = torch.full((number, len(images)), -1.0)
        least = torch.full((number,), self.threshold)
        flat = similarity.view(-1)
        for view, (left, coordinates) in zip(self._views, asked, strict=True):
            for pose in view.poses(images):
                right = view.centered(pose)
                found = view.screen.coordinates(right)
                pairs, products = products_above((left, right), (coordinates, found), least)
                flat.scatter_reduce_(0, pairs, products, "amax")
        return similarity

    def most_similar(self, queries: Tensor, references: Tensor, number: int) -> Tensor:
        """Return the positions of the references most similar to each query, (M, number), the most similar first.

        Args:
            queries: (M,) positions in the set, long.
            references: (K,) positions in the set, long.
            number: how many, at most K.
        """
        value, index = torch.zeros(len(queries), 0), torch.zeros(len(queries), 0, dtype=torch.long)
        for block in references.split(_BLOCK):
            value = torch.cat([value, self.similarities(queries, block)], 1)
            index = torch.cat([index, block.expand(len(queries), -1)], 1)
            value, order = value.topk(min(number, value.shape[1]), 1)
            index = index.gather(1, order)
        return index

    def similarities(self, queries: Tensor, references: Tensor) -> Tensor:
        """Return the similarity of each query with each reference, (M, K)."""
        similarity = torch.full((len(queries), len(references)), -1.0)
        images = self._images(references)
        for view, (left, _) in zip(self._views, self._asked(queries), strict=True):
            for pose in view.poses(images):
                torch.maximum(similarity, left @ view.centered(pose).T, out=similarity)
        return similarity


class _View:
    """One way to look at images: whole or cut to the foreground, in which stretches, and what all of them share."""

    shared: Tensor
    screen: Screen

    def __init__(self, stretches: Sequence[tuple[float, ...]], cut: bool = False) -> None:
        self.stretches = stretches
        self.cut = cut

    def described(self, images: Tensor) -> Tensor:
        """Descriptors of images as they are."""
        return _describe(self._seen(images), self.stretches[0])

    def poses(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the descriptors of these images in every pose that a copy may have."""
        seen = self._seen(images)
        for stretch in self.stretches:
            yield from _mirrored(_describe(seen, stretch))
        # who turns a picture does not stretch it as well: without stretches the turns cost 2/5 more in 2D, not 8/3
        yield from _turned(_describe(seen, self.stretches[0]))

    def centered(self, descriptors: Tensor) -> Tensor:
        return F.normalize((descriptors - self.shared).flatten(1), dim=1, eps=1e-12)

    def _seen(self, images: Tensor) -> Tensor:
        return _cut(images, foreground_boxes(images)) if self.cut else images


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
