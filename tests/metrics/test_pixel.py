# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pixel_cases import SHAPES_OF_SCORES, pixel_case
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from monai_anomaly.metrics import (
    PixelAccumulator,
    PixelAPMetric,
    PixelAUROCMetric,
    PixelBestDiceMetric,
    PixelPROMetric,
    compute_pixel_ap,
    compute_pixel_auroc,
    compute_pixel_best_dice,
    compute_pixel_pro,
)

METRICS = {
    "auroc": (PixelAUROCMetric, compute_pixel_auroc),
    "ap": (PixelAPMetric, compute_pixel_ap),
    "dice": (PixelBestDiceMetric, lambda maps, masks: compute_pixel_best_dice(maps, masks)[0]),
    "pro": (PixelPROMetric, compute_pixel_pro),
}


def _values(accumulator: PixelAccumulator) -> dict[str, float]:
    return {name: metric(accumulator).aggregate() for name, (metric, _) in METRICS.items()}


def _filled(maps: torch.Tensor, masks: torch.Tensor, **options) -> PixelAccumulator:
    accumulator = PixelAccumulator(**options)
    accumulator.update(maps, masks)
    return accumulator


@pytest.mark.parametrize("name", sorted(SHAPES_OF_SCORES))
def test_exact_equals_scikit_learn_and_streaming_stays_within_its_bound(name: str) -> None:
    maps, masks = pixel_case(name)
    known = masks >= 0
    scores, labels = maps[known].double().numpy(), masks[known].numpy()
    precision, recall, _ = precision_recall_curve(labels, scores)
    expected = {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "dice": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
        "pro": compute_pixel_pro(maps, masks),
    }
    exact, streaming = _filled(maps, masks, mode="exact"), _filled(maps, masks, mode="streaming")
    for key, (metric, compute) in METRICS.items():
        assert metric(exact).aggregate() == pytest.approx(expected[key], abs=1e-12)
        assert compute(maps, masks) == pytest.approx(expected[key], abs=1e-12)
        assert metric(exact).error_bound == pytest.approx(0.0, abs=1e-15)
        bound = metric(streaming).error_bound
        assert abs(metric(streaming).aggregate() - expected[key]) <= bound + 1e-12
        # a small spread about a large offset is what floating-point bins cannot resolve: the bound says so
        assert (bound > 0.05) if name == "narrow" else (bound < 0.02)
        if name in ("ties", "8 bit", "constant", "two values"):
            assert bound == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("bits", [10, 12, 20])
def test_more_bins_give_a_smaller_bound(bits: int) -> None:
    maps, masks = pixel_case("normal")
    exact, fine, coarse = (
        _filled(maps, masks, mode="exact"),
        _filled(maps, masks, mode="streaming", bits=bits + 2),
        _filled(maps, masks, mode="streaming", bits=bits),
    )
    for metric, _ in METRICS.values():
        assert abs(metric(coarse).aggregate() - metric(exact).aggregate()) <= metric(coarse).error_bound + 1e-12
        assert metric(fine).error_bound <= metric(coarse).error_bound


@pytest.mark.parametrize("mode", ["exact", "streaming"])
@pytest.mark.parametrize("name", ["heavy tail", "ties"])
def test_order_and_batches_change_no_bit(mode: str, name: str) -> None:
    maps, masks = pixel_case(name)
    order = torch.randperm(len(maps), generator=torch.Generator().manual_seed(0))
    shuffled = PixelAccumulator(mode=mode)
    for part in order.split(5):
        shuffled.update(list(maps[part]), list(masks[part]))
    assert _values(shuffled) == _values(_filled(maps, masks, mode=mode))


def test_auto_changes_to_streaming_by_the_number_of_pixels_alone() -> None:
    maps, masks = pixel_case("normal")
    annotated = int((masks >= 0).sum())
    for limit, expected in ((annotated, "exact"), (annotated - 1, "streaming"), (0, "streaming")):
        accumulator = _filled(maps, masks, max_exact_pixels=limit)
        assert accumulator.gathered().mode == expected
        assert _values(accumulator) == _values(_filled(maps, masks, mode=expected))
    always = _filled(maps, masks, mode="exact", max_exact_pixels=0)
    assert always.gathered().mode == "exact"


def test_memory_is_bounded_while_streaming() -> None:
    maps, masks = pixel_case("normal", images=40)
    accumulator = PixelAccumulator(max_exact_pixels=2000)
    for score, mask in zip(maps, masks, strict=True):
        accumulator.update(score[None], mask[None])
        assert sum(record.size for record in accumulator._records) <= 2000
    assert accumulator.gathered().mode == "streaming"


def test_unannotated_pixels_do_not_count() -> None:
    maps, masks = pixel_case("normal")
    masks[1, 0, :5] = -1.0
    changed = torch.where(masks < 0, torch.nan, maps)
    for mode in ("exact", "streaming"):
        assert _values(_filled(changed, masks, mode=mode)) == _values(_filled(maps, masks, mode=mode))


def test_volumes_mixed_sizes_and_meta_tensors() -> None:
    generator = torch.Generator().manual_seed(1)
    masks = [(torch.rand(1, *size, generator=generator) < 0.1).float() for size in ((6, 7, 8), (5, 5, 9))]
    maps = [torch.randn(mask.shape, generator=generator) + mask for mask in masks]
    accumulator = PixelAccumulator()
    accumulator.update([MetaTensor(m) for m in maps], [MetaTensor(m) for m in masks])
    scores, labels = (torch.cat([x.flatten() for x in xs]) for xs in (maps, masks))
    assert PixelAUROCMetric(accumulator).aggregate() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert 0.0 < PixelPROMetric(accumulator).aggregate() < 1.0


@pytest.mark.parametrize("mode", ["exact", "streaming"])
def test_image_seen_twice_counts_once(mode: str) -> None:
    maps, masks = pixel_case("normal")
    accumulator = PixelAccumulator(mode=mode)
    accumulator.update(maps, masks, indices=range(12))
    accumulator.update(maps[:3], masks[:3], indices=range(3))
    assert _values(accumulator) == _values(_filled(maps, masks, mode=mode))


def test_metrics_accumulate_alone_and_reset() -> None:
    maps, masks = pixel_case("normal")
    for metric_class, compute in METRICS.values():
        metric = metric_class()
        metric(maps[:5], masks[:5])
        metric(maps[5:], masks[5:])
        assert metric.aggregate() == pytest.approx(compute(maps, masks), abs=1e-12)
        metric.reset()
        metric(maps[:6], masks[:6])
        assert metric.aggregate() == pytest.approx(compute(maps[:6], masks[:6]), abs=1e-12)


def test_missing_class_is_nan_with_a_warning_that_names_it() -> None:
    maps, masks = pixel_case("normal")
    for labels, missing in ((torch.zeros_like(masks), "abnormal"), (torch.ones_like(masks), "normal")):
        for metric_class, _ in METRICS.values():
            metric = metric_class()
            metric(maps, labels)
            with pytest.warns(UserWarning, match=f"no annotated pixel is {missing}"):
                assert math.isnan(metric.aggregate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not math.isnan(PixelAPMetric(_filled(maps, masks)).aggregate())


def test_bad_input_is_refused() -> None:
    maps, masks = pixel_case("normal")
    accumulator = PixelAccumulator()
    with pytest.raises(ValueError, match="resize the map"):
        accumulator.update(maps[..., :5], masks)
    with pytest.raises(ValueError, match="nearest neighbor"):
        accumulator.update(maps, masks * 0.5)
    maps[0] = float("nan")
    with pytest.raises(ValueError, match="index 41"):
        accumulator.update(maps[:1], masks[:1], indices=[41])
    with pytest.raises(ValueError, match="'auto', 'exact', 'streaming'"):
        PixelAccumulator(mode="fast")
    with pytest.raises(ValueError, match="-1"):
        PixelAccumulator(max_exact_pixels=-1)
    with pytest.raises(ValueError, match="max_fpr"):
        PixelPROMetric(max_fpr=1.5)
    with pytest.raises(ValueError, match="same shape"):
        compute_pixel_auroc(maps, masks[:3])
