# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Which patches of an image a masked autoencoder is shown: sets of kept patches, given by their numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def num_kept(num_patches: int, mask_ratio: float) -> int:
    """Number V of patches that are shown, ``int(T (1 - ratio))``: 49 of 196 for a ratio of 0.75, 19 for 0.9.

    Args:
        num_patches: number T of patches.
        mask_ratio: share of patches removed, in (0, 1).

    Raises:
        ValueError: when the ratio is out of range, or leaves no patch, or all of them.
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio!r}")
    kept = int(round(num_patches * (1 - mask_ratio), 9))  # rounded, else the last bit of 1 - 0.9 would cost a patch
    if not 1 <= kept < num_patches:
        raise ValueError(
            f"mask_ratio {mask_ratio!r} keeps {kept} of {num_patches} patches: at least one must be kept and at least "
            "one removed; choose another ratio, or smaller patches"
        )
    return kept


def random_kept(
    num_sets: int,
    num_patches: int,
    mask_ratio: float,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw sets of kept patches, each independent of the others.

    Args:
        num_sets: number of sets.
        num_patches: number T of patches.
        mask_ratio: see :func:`num_kept`; 0.75 by He et al. and AMAE, 0.9 in the pre-training of Xiao et al.
        generator: where the draws come from; None (default) draws from PyTorch's global generator.
        device: where the result is to be; by default that of the generator, so that draws of a CPU generator are the
            same on every device.

    Returns:
        numbers of the kept patches in ascending order, (num_sets, V).

    Raises:
        ValueError: see :func:`num_kept`.

    Reference:
        K. He et al.: "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.
    """
    kept = num_kept(num_patches, mask_ratio)
    return _permutations(num_sets, num_patches, generator)[:, :kept].sort(1).values.to(device)


def partition_kept(
    num_sets: int,
    num_patches: int,
    parts: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw sets of kept patches such that over the parts of a set every patch is kept exactly once.

    Args:
        num_sets: number of sets.
        num_patches: number T of patches, divisible by the parts.
        parts: number of parts; T / parts patches are kept in each.
        generator: see :func:`random_kept`.
        device: see :func:`random_kept`.

    Returns:
        numbers of the kept patches in ascending order, (num_sets, parts, T / parts).

    Raises:
        ValueError: when the patches cannot be divided so.
    """
    if parts < 2 or num_patches % parts:
        raise ValueError(f"parts must be at least 2 and divide the {num_patches} patches, got {parts!r}")
    order = _permutations(num_sets, num_patches, generator)
    return order.unflatten(1, (parts, -1)).sort(2).values.to(device)


def mask_of_kept(kept: Tensor, num_patches: int) -> Tensor:
    """Mask of the removed patches: 1 = removed, 0 = kept.

    Args:
        kept: numbers of the kept patches (..., V).
        num_patches: number T of patches.

    Returns:
        (..., T), float.
    """
    # made of the numbers themselves, else a traced network would hold the device it was traced on
    removed = torch.ones_like(kept[..., :1], dtype=torch.float32).expand(*kept.shape[:-1], num_patches)
    return removed.scatter(-1, kept, 0.0)


def _permutations(num_sets: int, num_patches: int, generator: torch.Generator | None) -> Tensor:
    # float64, in which two equal draws are not to be expected: they would favor the patch with the smaller number
    device = None if generator is None else generator.device
    return torch.rand(num_sets, num_patches, generator=generator, device=device, dtype=torch.float64).argsort(1)
