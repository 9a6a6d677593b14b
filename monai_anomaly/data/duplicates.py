# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Near-duplicate images: copies that were mirrored, stretched, sharpened, or changed in contrast.

Images are compared by the correlation of their band-passed thumbnails, in two views (whole, and cut to the foreground, which
undoes margins), mirrored along each axis and stretched a little. What all images of a set share, such as the round edge
of a fundus photograph, is taken out first, else all of them would look alike.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .baselines import otsu_thresholds

THRESHOLD = 0.9
STRETCHES = (0.93, 1.07)
_BLOCK = 1024
_MOST_BLOCK_ELEMENTS = 2**22
# Relative to the thumbnail's side: 1 and 4 pixels of 64. Coarser bands see the anatomy that all chests share, finer
# ones the noise that resampling destroys.
_FINE, _COARSE = 1 / 64, 1 / 16
# The shared part is the mean times n / (n + 32): the mean of a handful of images is mostly these images themselves.
_SHRINKAGE = 32.0
_EDGE_SHARE = 0.02


class NearDuplicates(NamedTuple):
    """Result of :meth:`DuplicateSearch.find`.

    Args:
        index: (M,) position of the most similar reference of each query.
        similarity: (M,) its similarity in [-1, 1].
        count: (M,) number of references at or above the threshold.
    """

    index: Tensor
    similarity: Tensor
    count: Tensor


class DuplicateSearch:
    """Find near-duplicates among the images of one data set.

    The similarity of two thumbnails is the largest cosine, over views, mirror images and stretches, of their descriptors
    ``(d(x) - m) / ||d(x) - m||``, where ``d`` is the difference of two Gaussian blurs (sigma 1 and 4 pixels of 64) at half
    resolution with unit norm, and ``m`` the shrunk mean of ``d`` over the set.

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
        self.thumbnails = thumbnails.to(torch.float32)
        self.threshold = threshold
        axes = thumbnails.ndim - 1
        one = (1.0,) * axes
        each_axis = [one[:axis] + (s,) + one[axis + 1 :] for axis, s in product(range(axes), STRETCHES)]
        all_axes = [(s,) * axes for s in STRETCHES]
        whole = torch.tensor([0.0, 1.0]).expand(len(thumbnails), axes, 2)
        # the foreground's box follows a stretch by itself
        self._views = [(whole, [one, *each_axis, *all_axes]), (foreground_boxes(self.thumbnails), [one])]
        self._shared = [self._mean_descriptor(boxes) for boxes, _ in self._views]

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
        for (boxes, stretches), shared in zip(self._views, self._shared, strict=True):
            left = _center(self._describe(queries, boxes[queries]), shared)
            for stretch in stretches:
                right = self._describe(references, _scale(boxes[references], stretch))
                for mirrored in _mirrored(right):
                    torch.maximum(similarity, left @ _center(mirrored, shared).T, out=similarity)
        return similarity

    def _describe(self, positions: Tensor, boxes: Tensor) -> Tensor:
        """Return the band-passed content of the boxes, (B, *(S / 2)), each with unit norm."""
        step = max(1, _MOST_BLOCK_ELEMENTS // self.thumbnails[0].numel())
        parts = zip(positions.split(step), boxes.split(step), strict=True)
        return torch.cat([_band_pass(self.thumbnails[p], b) for p, b in parts])

    def _mean_descriptor(self, boxes: Tensor) -> Tensor:
        n = len(self.thumbnails)
        return self._describe(torch.arange(n), boxes).mean(0) * (n / (n + _SHRINKAGE))


def foreground_boxes(thumbnails: Tensor) -> Tensor:
    """Return the box of the foreground of each thumbnail, in shares of its sides.

    Foreground is what is brighter than half of Otsu's threshold above the minimum; lines of an axis with at most 2 % of it
    are left out.

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


def _band_pass(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut out, blur twice, halve and subtract: each step is linear and separable, so it is one small matrix an axis."""
    size = images.shape[1]
    cuts = [_resampling(boxes[:, axis], size) for axis in range(images.ndim - 1)]
    fine, coarse = (
        reduce(lambda x, axis: _along(x, blur @ cuts[axis], axis + 1), range(len(cuts)), images)
        for blur in (_half_blur(size, _FINE * size), _half_blur(size, _COARSE * size))
    )
    band = (fine - coarse).flatten(1)
    band = F.normalize(band - band.mean(1, keepdim=True), dim=1, eps=1e-12)
    return band.view_as(fine)


def _along(images: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Apply (B, T, S) to one axis of (B, *S)."""
    moved = images.movedim(axis, 1)
    return (matrices @ moved.flatten(2)).view(len(images), -1, *moved.shape[2:]).movedim(1, axis)


def _half_blur(size: int, sigma: float) -> Tensor:
    """Return the (size / 2, size) matrix of a Gaussian blur and the mean of pairs, each row with sum one."""
    x = torch.arange(size, dtype=torch.float32)
    weights = torch.exp(-((x[:, None] - x) ** 2) / (2 * sigma**2))
    weights = weights / weights.sum(1, keepdim=True)
    return (weights[0::2] + weights[1::2]) / 2


def _resampling(spans: Tensor, size: int) -> Tensor:
    """Return the (B, size, size) matrices of linear interpolation on the spans (B, 2), clamped at the border."""
    share = (torch.arange(size) + 0.5) / size
    at = spans[:, :1] + (spans[:, 1:] - spans[:, :1]) * share
    at = (at * size - 0.5).clamp(0, size - 1)
    return (1 - (at[:, :, None] - torch.arange(size)).abs()).clamp_min(0)


def _scale(boxes: Tensor, stretch: tuple[float, ...]) -> Tensor:
    middle = boxes.mean(2, keepdim=True)
    return middle + (boxes - middle) * torch.tensor(stretch)[:, None]


def _mirrored(descriptors: Tensor) -> list[Tensor]:
    """Return the descriptors, and mirrored along each one axis: files store axes in different orders."""
    return [descriptors] + [descriptors.flip(axis) for axis in range(1, descriptors.ndim)]


def _center(descriptors: Tensor, shared: Tensor) -> Tensor:
    return F.normalize((descriptors - shared).flatten(1), dim=1, eps=1e-12)
