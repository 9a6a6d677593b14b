# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What a network is to predict for a synthetic anomaly: from the change of each pixel to a label in [0, 1].

All take three maps (B, 1, *S) and return one:

* ``change``: mean absolute change over the channels, zero outside the support;
* ``support``: bool, where the anomaly is;
* ``weight``: share of foreign content, in [0, 1], zero outside the support.

A label is zero outside the support.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.morphology import reconstruction
from torch import Tensor


def mean_change(image: Tensor, clean: Tensor, support: Tensor) -> Tensor:
    """Mean absolute change over the channels inside the support, (B, 1, *S)."""
    return (image - clean).abs().mean(1, keepdim=True) * support


def binary_label(change: Tensor, support: Tensor, weight: Tensor) -> Tensor:
    """1 in the support."""
    return support.to(change.dtype)


def weight_label(change: Tensor, support: Tensor, weight: Tensor) -> Tensor:
    """The share of foreign content (J. Tan et al.: FPI, 2020, and PII, MICCAI 2021: the interpolation factor)."""
    return weight * support


def intensity_label(change: Tensor, support: Tensor, weight: Tensor, width: int = 1) -> Tensor:
    """The change itself, median filtered (NSA's "raw intensity").

    Args:
        change, support, weight: see above.
        width: diameter of the median filter in pixels, odd; the published NSA takes a disk of radius 5.
    """
    return _median(change, width) * support


def logistic_label(
    change: Tensor, support: Tensor, weight: Tensor, steepness: float, midpoint: float, width: int = 1
) -> Tensor:
    """Logistic function ``1 / (1 + exp(-k (x - x0)))`` of the change (H. Schlueter et al.: NSA, ECCV 2022).

    Args:
        change, support, weight: see above.
        steepness: k, per unit of intensity; published: 1/6 per grey level of 256, for chest radiographs 1/2.
        midpoint: x0, change with the label 1/2; published: 20 grey levels, for chest radiographs 4.
        width: diameter of a median filter in pixels, odd; 1: none.
    """
    return torch.sigmoid(steepness * (_median(change, width) - midpoint)) * support


def flipped_gaussian_label(
    change: Tensor, support: Tensor, weight: Tensor, std: float = 0.2, fill_holes: bool = True
) -> Tensor:
    """``1 - exp(-x^2 / (2 std^2))`` of the change, closed and filled in each connected region (many-tasks, MICCAI 2023).

    Args:
        change, support, weight: see above.
        std: change that counts as about 0.4; paper's default 0.2 for images in [0, 1].
        fill_holes: whether grey closing and hole filling follow, which take an image at a time on the CPU.
    """
    label = -torch.expm1(-change.square() / (2 * std**2))
    return _per_region(label, support) if fill_holes else label


def saturating_label(
    change: Tensor, support: Tensor, weight: Tensor, steepness: float, ceiling: float
) -> Tensor:
    """``(1 + c) / (1 + exp(-a x) / c) - c``, from 0 at no change to 1 (many-tasks' alternative, its code)."""
    label = (1 + ceiling) / (1 + torch.exp(-steepness * change) / ceiling) - ceiling
    return label.clamp(0, 1) * support


def _median(values: Tensor, width: int) -> Tensor:
    """Median of the window of a given width around each pixel, pixels beyond the border left out of it."""
    if width <= 1:
        return values
    if width % 2 == 0:
        raise ValueError(f"width must be odd, got {width}")
    reach = width // 2
    padded = F.pad(values, [reach] * (2 * (values.ndim - 2)), value=torch.nan)
    for axis in range(2, values.ndim):
        padded = padded.unfold(axis, width, 1)
    return padded.flatten(values.ndim).nanmedian(-1).values


def _per_region(label: Tensor, support: Tensor) -> Tensor:
    """Close and fill the label of each connected region of the support."""
    result = torch.zeros_like(label)
    for values, inside, out in zip(label[:, 0], support[:, 0], result[:, 0], strict=True):
        array = values.detach().cpu().numpy()
        regions, _ = ndimage.label(inside.cpu().numpy())
        filled = np.zeros_like(array)
        for number, box in enumerate(ndimage.find_objects(regions), 1):
            own = regions[box] == number
            filled[box][own] = _closed_and_filled(array[box] * own)[own]
        out.copy_(torch.from_numpy(filled))
    return result


def _closed_and_filled(crop: np.ndarray) -> np.ndarray:
    closed: np.ndarray = ndimage.grey_closing(crop, size=(3,) * crop.ndim)
    if min(closed.shape) < 3:
        return closed  # no inside to fill
    seed = closed.copy()
    seed[(slice(1, -1),) * seed.ndim] = closed.max()
    return np.asarray(reconstruction(seed, closed, method="erosion"), dtype=crop.dtype)
