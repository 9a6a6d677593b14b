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

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from .boxes import box_points

_MOST_VALUES = 2**24


def mean_change(image: Tensor, clean: Tensor, support: Tensor) -> Tensor:
    """Mean absolute change over the channels inside the support, (B, 1, *S)."""
    change = (image - clean).abs_()
    return (change if change.shape[1] == 1 else change.mean(1, keepdim=True)).mul_(support)


def binary_label(change: Tensor, support: Tensor, weight: Tensor) -> Tensor:
    """1 in the support."""
    return support.to(change.dtype)


def weight_label(change: Tensor, support: Tensor, weight: Tensor) -> Tensor:
    """The share of foreign content (J. Tan et al.: FPI, 2020, and PII, MICCAI 2021: the interpolation factor)."""
    return weight * support


def intensity_label(change: Tensor, support: Tensor, weight: Tensor, width: int = 1) -> Tensor:
    """The change itself, median filtered (H. Schlueter et al.: NSA, ECCV 2022, its raw intensity).

    Args:
        change: see above; as a fraction of the value range, so that the label is at most 1.
        support: see above.
        weight: see above, not read.
        width: diameter of the ball that the median is taken over, in pixels, odd; default 1 (none). Published: 11.
    """
    return median_change(change, support, width)


def logistic_label(
    change: Tensor, support: Tensor, weight: Tensor, steepness: float, midpoint: float, width: int = 1
) -> Tensor:
    """Logistic function ``1 / (1 + exp(-k (x - x0)))`` of the change (H. Schlueter et al.: NSA, ECCV 2022).

    Args:
        change: see above.
        support: see above.
        weight: see above, not read.
        steepness: k, per unit of intensity; published: 1/6 per grey level of 256, for chest radiographs 1/2.
        midpoint: x0, change with the label 1/2; published: 20 grey levels, for chest radiographs 4.
        width: diameter of the ball that a median is taken over, in pixels, odd; default 1 (none). Published: 11.
    """
    return torch.sigmoid(steepness * (median_change(change, support, width) - midpoint)) * support


def flipped_gaussian_label(
    change: Tensor,
    support: Tensor,
    weight: Tensor,
    std: float = 0.2,
    fill_holes: bool = True,
    connectivity: int = 2,
    compat: str | None = None,
) -> Tensor:
    """``1 - exp(-x^2 / (2 std^2))`` of the change, closed and filled in each connected region (many-tasks, 2023).

    What counts as a neighbor in closing and filling is no matter of right and wrong; the default is the authors', whose
    figures were made with it. What counts as a region is: in their program the box around a region is closed and filled
    with all that is in it, so that a label depends on other anomalies nearby and may be above zero where nothing
    changed. Here a region is taken by itself unless ``compat`` says otherwise.

    Args:
        change: see above.
        support: see above.
        weight: see above, not read.
        std: change that counts as about 0.4; paper's default 0.2 for images in [0, 1].
        fill_holes: whether grey closing and hole filling follow, which take an image at a time on the CPU.
        connectivity: axes along which a neighbor may be one voxel away at once, as in
            ``scipy.ndimage.generate_binary_structure``. Published default 2: 8 neighbors in 2D, 18 in 3D; 3: all 26 of
            a cube; 1: 4 and 6.
        compat: None (default): each region by itself; "published": the box around each region with all that is in it.

    Raises:
        ValueError: when ``std`` is not above 0, ``connectivity`` is not 1, 2 or 3, or ``compat`` is unknown.
    """
    _check_positive(std=std)
    if connectivity not in (1, 2, 3):
        raise ValueError(f"connectivity must be 1, 2 or 3, got {connectivity!r}")
    if compat not in (None, "published"):
        raise ValueError(f'compat must be None or "published", got {compat!r}')
    label = -torch.expm1(-change.square() / (2 * std**2))
    return _per_region(label, support, connectivity, compat == "published") if fill_holes else label


def saturating_label(change: Tensor, support: Tensor, weight: Tensor, steepness: float, ceiling: float) -> Tensor:
    """``(1 + c) / (1 + exp(-a x) / c) - c``, from 0 at no change to 1 (the alternative in the code of many-tasks).

    Args:
        change: see above.
        support: see above.
        weight: see above, not read.
        steepness: a, per unit of intensity, above 0.
        ceiling: c, above 0; the smaller, the longer the label stays near 0.
    """
    _check_positive(steepness=steepness, ceiling=ceiling)
    label = (1 + ceiling) / (1 + torch.exp(-steepness * change) / ceiling) - ceiling
    return label.clamp(0, 1) * support


def smooth_support(support: Tensor, width: int = 5) -> Tensor:
    """Median of a map of bools, that is, its majority in a square window; a tie is False.

    Args:
        support: (B, 1, *S), bool.
        width: of the window in pixels, odd; pixels beyond the border of the image are left out. NSA's default 5.
    """
    _check_width(width)
    dims = support.ndim - 2
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    return pool(support.to(torch.float32), width, 1, width // 2, count_include_pad=False) > 0.5


def median_change(change: Tensor, support: Tensor, width: int) -> Tensor:
    """Median over a ball around each pixel of the support, zero elsewhere.

    Pixels beyond the border of the image are left out. If that leaves an even number, the lower one of the two in the
    middle counts.

    Args:
        change: (B, 1, *S).
        support: (B, 1, *S), bool.
        width: diameter of the ball in pixels, odd; 1: none.
    """
    _check_width(width)
    if width == 1:
        return change * support
    dims, reach = change.ndim - 2, width // 2
    padded = F.pad(change, [reach] * (2 * dims), value=torch.nan)
    strides = torch.tensor(padded.stride(), device=change.device)
    cube = box_points([width] * dims, change)
    ball = cube[(cube - reach).square().sum(-1) <= reach**2].long()
    neighbors = (ball * strides[2:]).sum(1)
    result = torch.zeros_like(change)
    # not all at once: the windows of many voxels in 3D would fill the memory
    for place in support.nonzero().split(max(_MOST_VALUES // len(neighbors), 1)):
        index = (place * strides).sum(1)[:, None] + neighbors
        windows = padded.flatten().index_select(0, index.flatten()).reshape(index.shape)
        result[place.unbind(1)] = lower_median(windows, sort=windows.device.type != "cpu")
    return result


def lower_median(values: Tensor, sort: bool = False) -> Tensor:
    """Median over the last axis without NaN; of an even number of values the lower one in the middle.

    Args:
        values: (..., N), at least one of each N no NaN.
        sort: whether to sort, which is slower on a CPU; PyTorch's own median is not deterministic on a GPU.
    """
    if not sort:
        return values.nanmedian(-1).values
    ordered = values.nan_to_num(nan=torch.inf).sort(-1).values
    middle = (values.isfinite().sum(-1, keepdim=True) - 1) // 2
    return ordered.gather(-1, middle)[..., 0]


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")


def _check_width(width: int) -> None:
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width must be odd and 1 or more, got {width!r}")


def _per_region(label: Tensor, support: Tensor, connectivity: int, whole_box: bool) -> Tensor:
    """Close and fill the label of each connected region of the support, or of the box around it."""
    result = torch.zeros_like(label)
    for values, inside, out in zip(label[:, 0], support[:, 0], result[:, 0], strict=True):
        array = values.detach().cpu().numpy()
        regions, _ = ndimage.label(inside.cpu().numpy())
        filled = array.copy() if whole_box else np.zeros_like(array)
        for number, box in enumerate(ndimage.find_objects(regions), 1):
            own = regions[box] == number
            if whole_box:
                filled[box] = _closed_and_filled(filled[box], connectivity)
            else:
                filled[box][own] = _closed_and_filled(array[box] * own, connectivity)[own]
        out.copy_(torch.from_numpy(filled))
    return result


def _closed_and_filled(crop: np.ndarray, connectivity: int) -> np.ndarray:
    """Close a label by neighbors and fill its holes: raise each voxel to the lowest pass to the border."""
    closed = _of_neighbors(np.minimum, _of_neighbors(np.maximum, crop, connectivity), connectivity)
    # the pass along a straight line is an upper bound, from which the lowest of all is a few steps away
    level = np.minimum.reduce([_straight_pass(closed, axis) for axis in range(closed.ndim)])
    for _ in range(closed.size):  # far fewer are needed
        lower = np.maximum(closed, _of_neighbors(np.minimum, level, connectivity))
        if not (lower < level).any():
            break
        level = lower
    return level


def _straight_pass(values: np.ndarray, axis: int) -> np.ndarray:
    """Highest value on the way to the border along an axis, in the direction where that is lower."""
    forth = np.maximum.accumulate(values, axis)
    back = np.flip(np.maximum.accumulate(np.flip(values, axis), axis), axis)
    return np.minimum(forth, back)


def _of_neighbors(extreme: np.ufunc, values: np.ndarray, connectivity: int) -> np.ndarray:
    """Extreme of each voxel and its neighbors; on small arrays faster than SciPy's filters."""
    count = min(connectivity, values.ndim)
    # neighbors that differ along some axes lie in the cubes of each choice of so many axes
    return extreme.reduce([_along(extreme, values, axes) for axes in combinations(range(values.ndim), count)])


def _along(extreme: np.ufunc, values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Extreme of each voxel and those one away along any of some axes."""
    for axis in axes:
        first, last = [slice(None)] * values.ndim, [slice(None)] * values.ndim
        first[axis], last[axis] = slice(None, -1), slice(1, None)
        lower, upper = tuple(first), tuple(last)
        result = values.copy()
        extreme(result[upper], values[lower], out=result[upper])
        extreme(result[lower], values[upper], out=result[lower])
        values = result
    return values
