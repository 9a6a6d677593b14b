# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Connected regions of annotation masks, and the per-region overlap built on them."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .curves import check_scores, count_positive_scores, region_overlap_from_counts

__all__ = ["REGION_UNIT", "per_region_overlap", "region_weights"]

#: a region's total weight in fixed point: integers add up to the same sum in any order and on any number of ranks
REGION_UNIT = 2**42


def region_weights(mask: Tensor, connectivity: int | None = None) -> tuple[Tensor, int]:
    """Weigh each abnormal pixel by one over the size of its connected region, in units of ``1 / REGION_UNIT``.

    The rounding to integers changes a region's weight by less than its number of pixels divided by ``REGION_UNIT``.

    Args:
        mask: (*S) bool annotation of one image, 1D, 2D or 3D.
        connectivity: 1 joins pixels that share a face, 2 also those that share an edge, 3 also a corner; default the
            number of axes, so that diagonal neighbors belong together (8 in 2D, 26 in 3D).

    Raises:
        ValueError: ``connectivity`` is not in 1..number of axes.

    Returns:
        (P,) int64 weights of the abnormal pixels in the order of ``mask.nonzero()``, and the number of regions.
    """
    connectivity = mask.ndim if connectivity is None else connectivity
    if not 1 <= connectivity <= mask.ndim:
        raise ValueError(f"connectivity must be in 1..{mask.ndim} for a {mask.ndim}D mask, got {connectivity}.")
    array = mask.detach().cpu().numpy().astype(bool)
    labels, count = ndimage.label(array, ndimage.generate_binary_structure(mask.ndim, connectivity))
    inside = labels[array]
    sizes = np.bincount(inside, minlength=count + 1)
    return torch.from_numpy(REGION_UNIT // sizes[inside]).to(torch.int64), int(count)


def per_region_overlap(maps: Tensor, masks: Tensor, max_fpr: float = 0.3, connectivity: int | None = None) -> float:
    r"""Per-region overlap (PRO): normalized area under the mean region recall up to a false positive rate.

    .. math:: \frac{1}{f} \int_0^{f} \frac{1}{R} \sum_{r=1}^{R} \frac{|\{s \ge t\} \cap C_r|}{|C_r|} \, d\mathrm{FPR}(t)

    over all distinct thresholds of all images together. A small lesion weighs as much as a large one.

    Args:
        maps: (B, 1, *S) anomaly maps, no NaN where annotated; larger is more abnormal.
        masks: (B, 1, *S) 0 or 1; pixels below 0 are not annotated and ignored.
        max_fpr: false positive rate at which the curve is cut, in (0, 1]; the paper's default is 0.3.
        connectivity: see :func:`region_weights`.

    Raises:
        ValueError: shapes differ, ``max_fpr`` is out of range, maps are NaN, or no region or no normal pixel exists.

    Returns:
        the area in [0, 1].

    Reference:
        Bergmann et al., "Uninformed students", CVPR 2020, and "The MVTec anomaly detection dataset", IJCV 2021.
    """
    if maps.shape != masks.shape or maps.ndim < 3:
        raise ValueError(f"maps and masks must both be (B, 1, *S), got {tuple(maps.shape)} and {tuple(masks.shape)}.")
    if not 0.0 < max_fpr <= 1.0:
        raise ValueError(f"max_fpr must be in (0, 1], got {max_fpr}.")
    weights = [region_weights(mask[0] > 0.5, connectivity)[0] for mask in masks]
    known = masks >= 0
    scores, positive = check_scores(maps[known], masks[known])
    counts, summed = count_positive_scores(scores[positive], scores[~positive], torch.cat(weights).to(scores.device))
    return float(region_overlap_from_counts(summed, counts.negatives, max_fpr))
