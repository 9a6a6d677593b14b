# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.measure import label

from monai_anomaly.functional.regions import REGION_UNIT, per_region_overlap, region_weights


def slow_overlap(maps: np.ndarray, masks: np.ndarray, max_fpr: float, connectivity: int | None = None) -> float:
    """Walk through every threshold and every region, then integrate the curve by trapezoids."""
    fprs, overlaps = [0.0], [0.0]
    regions = []
    for score, mask in zip(maps[:, 0], masks[:, 0], strict=True):
        labels = label(mask == 1, connectivity=connectivity or mask.ndim)
        regions += [score[labels == i] for i in range(1, labels.max() + 1)]
    for threshold in sorted(set(maps[masks >= 0].tolist()), reverse=True):
        overlaps.append(float(np.mean([np.mean(region >= threshold) for region in regions])))
        fprs.append(float(np.mean(maps[masks == 0] >= threshold, dtype=np.float64)))
    area = 0.0
    for x0, x1, y0, y1 in zip(fprs, fprs[1:], overlaps, overlaps[1:], strict=False):
        if x0 < max_fpr and x1 > x0:
            end = min(x1, max_fpr)
            area += (end - x0) * (y0 + (y1 - y0) * (end - x0) / (x1 - x0) / 2)
    return area / max_fpr


def _maps(seed: int, shape: tuple[int, ...], step: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(shape, generator=generator) < 0.15).float()
    maps = torch.randn(shape, generator=generator) + 0.8 * masks
    return (maps / step).round() * step if step else maps, masks


@pytest.mark.parametrize("shape", [(3, 1, 14, 11), (2, 1, 6, 5, 7)])
@pytest.mark.parametrize("step", [0.0, 0.5])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_equal_to_loop_over_thresholds(shape: tuple[int, ...], step: float, max_fpr: float) -> None:
    maps, masks = _maps(0, shape, step)
    masks[0, 0, :3] = -1.0
    expected = slow_overlap(maps.numpy(), masks.numpy(), max_fpr)
    assert per_region_overlap(maps, masks, max_fpr) == pytest.approx(expected, abs=1e-9)


def test_connectivity_decides_what_belongs_together() -> None:
    diagonal = torch.eye(5, dtype=torch.bool)
    assert region_weights(diagonal)[1] == 1
    assert region_weights(diagonal, connectivity=1)[1] == 5
    maps, masks = _maps(1, (2, 1, 12, 12), 0.0)
    expected = slow_overlap(maps.numpy(), masks.numpy(), 0.3, connectivity=1)
    assert per_region_overlap(maps, masks, connectivity=1) == pytest.approx(expected, abs=1e-9)


def test_weights_of_a_region_add_up_to_one_unit() -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[0, :7] = mask[4:7, 4:7] = True
    weights, count = region_weights(mask)
    assert count == 2
    assert float(weights.sum()) / REGION_UNIT == pytest.approx(2.0, abs=1e-10)
    assert weights.unique().tolist() == [REGION_UNIT // 9, REGION_UNIT // 7]


def test_small_region_counts_as_much_as_a_large_one() -> None:
    masks = torch.zeros(1, 1, 20, 20)
    masks[..., :8, :8] = 1.0
    masks[..., 15, 15] = 1.0
    found_large, found_small = masks.clone(), masks.clone()
    found_large[..., 15, 15] = 0.0
    found_small[..., :8, :8] = 0.0
    # the missed region is tied with all normal pixels: its recall grows to 0.3, by half of it on average
    for maps in (found_large, found_small):
        assert per_region_overlap(maps, masks) == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-9)


def test_perfect_and_constant_maps() -> None:
    _, masks = _maps(2, (2, 1, 10, 10), 0.0)
    assert per_region_overlap(masks, masks) == pytest.approx(1.0)
    assert per_region_overlap(torch.ones_like(masks), masks) == pytest.approx(0.15)


def test_bad_input_is_refused() -> None:
    maps, masks = _maps(3, (1, 1, 8, 8), 0.0)
    with pytest.raises(ValueError, match="no positive"):
        per_region_overlap(maps, torch.zeros_like(masks))
    with pytest.raises(ValueError, match="no negative"):
        per_region_overlap(maps, torch.ones_like(masks))
    with pytest.raises(ValueError, match="max_fpr"):
        per_region_overlap(maps, masks, 0.0)
    with pytest.raises(ValueError, match="connectivity"):
        per_region_overlap(maps, masks, connectivity=3)
    with pytest.raises(ValueError, match=r"\(B, 1, \*S\)"):
        per_region_overlap(maps, masks[..., :4])
    maps[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        per_region_overlap(maps, masks)
    masks[0, 0, 0, 0] = -1.0
    assert 0.0 <= per_region_overlap(maps, masks) <= 1.0
