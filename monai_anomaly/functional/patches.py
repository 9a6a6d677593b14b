# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Images as sequences of square patches, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def patchify(image: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Cut images into patches that do not overlap.

    Args:
        image: (B, C, *S), 2D or 3D.
        patch_size: pixels of a patch along each spatial axis, by which the image must be divisible.

    Returns:
        (B, T, P): the T patches row by row; in a patch the P = prod(patch_size) * C values row by row, channel last.

    Raises:
        ValueError: when the image is not divisible into such patches.

    Reference:
        K. He, X. Chen, S. Xie, Y. Li, P. Dollar, R. Girshick: "Masked Autoencoders Are Scalable Vision Learners", CVPR
        2022.
    """
    dims = len(patch_size)
    _check_sizes(image, patch_size)
    for axis, size in enumerate(patch_size):
        image = image.unflatten(2 + 2 * axis, (-1, size))
    grid, inside = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return image.permute(0, *grid, *inside, 1).flatten(1 + dims).flatten(1, dims)


def unpatchify(patches: Tensor, patch_size: Sequence[int], grid: Sequence[int], channels: int) -> Tensor:
    """Put patches together to images: what undoes :func:`patchify`.

    Args:
        patches: (B, T, P).
        patch_size: pixels of a patch along each spatial axis.
        grid: number of patches along each spatial axis; their product is T.
        channels: channels C of an image; P = prod(patch_size) * C.

    Returns:
        (B, C, *S).

    Raises:
        ValueError: when the patches do not fit the sizes.
    """
    dims = len(patch_size)
    expected = (math.prod(grid), math.prod(patch_size) * channels)
    if not torch.jit.is_tracing() and (patches.ndim != 3 or tuple(patches.shape[1:]) != expected):
        raise ValueError(f"patches must have the shape (B, {expected[0]}, {expected[1]}), got {tuple(patches.shape)}")
    image = patches.unflatten(1, tuple(grid)).unflatten(1 + dims, (*patch_size, channels))
    pairs = [axis for i in range(dims) for axis in (1 + i, 1 + dims + i)]
    image = image.permute(0, 1 + 2 * dims, *pairs)
    for axis in range(dims):
        image = image.flatten(2 + axis, 3 + axis)
    return image


def _check_sizes(image: Tensor, patch_size: Sequence[int]) -> None:
    if torch.jit.is_tracing():  # there the sizes are tensors, and a comparison would be a warning
        return
    sizes = tuple(image.shape[2:])
    if len(sizes) != len(patch_size) or any(size % patch for size, patch in zip(sizes, patch_size, strict=True)):
        raise ValueError(f"the image size {sizes} must be divisible by the patch size {tuple(patch_size)}")
