# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest
import torch
from pixel_cases import pixel_case

from monai_anomaly.metrics import (
    ImageAccumulator,
    PixelAccumulator,
    compute_image_auroc,
    compute_pixel_ap,
    compute_pixel_auroc,
    compute_pixel_best_dice,
    compute_pixel_pro,
    summarize_metrics,
)

PATIENTS = [f"p{i // 2}" for i in range(12)]


def _accumulated(maps: torch.Tensor, masks: torch.Tensor, mode: str = "exact", patients: list[str] | None = None):
    pixels, images = PixelAccumulator(mode, keep_patients=True), ImageAccumulator()
    pixels.update(maps, masks, patients or PATIENTS)
    images.update(maps.flatten(1).amax(1), (torch.arange(len(maps)) + 1) % 2, patients or PATIENTS)
    return images.gathered(), pixels.gathered()


def test_values_counts_and_labels() -> None:
    maps, masks = pixel_case("normal")
    summary = summarize_metrics(*_accumulated(maps, masks), num_draws=50)
    metrics = summary["metrics"]
    assert list(metrics) == ["image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro"]
    assert metrics["image_auroc"]["value"] == compute_image_auroc(maps.flatten(1).amax(1), (torch.arange(12) + 1) % 2)
    assert metrics["pixel_auroc"]["value"] == pytest.approx(compute_pixel_auroc(maps, masks), abs=1e-12)
    assert metrics["pixel_ap"]["value"] == pytest.approx(compute_pixel_ap(maps, masks), abs=1e-12)
    assert metrics["pixel_pro"]["value"] == pytest.approx(compute_pixel_pro(maps, masks), abs=1e-12)
    dice, threshold = compute_pixel_best_dice(maps, masks)
    assert metrics["pixel_best_dice"]["value"] == pytest.approx(dice, abs=1e-12)
    assert summary["settings"]["pixel_best_dice_threshold"] == pytest.approx(threshold)
    assert {name for name, entry in metrics.items() if entry["oracle"]} == {"pixel_best_dice"}
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in metrics.values())
    counts = summary["counts"]
    assert (counts["images"], counts["healthy"], counts["anomalous"], counts["patients"]) == (12, 6, 6, 6)
    assert counts["prevalence"] == 0.5
    assert counts["pixel_prevalence"] == pytest.approx(float((masks == 1).sum() / (masks >= 0).sum()))
    json.dumps(summary, allow_nan=False)


def test_pixel_intervals_equal_the_metric_of_copied_images() -> None:
    # few distinct scores: the table per patient then loses nothing, and each draw can be checked
    maps, masks = pixel_case("ties")
    patients = [f"p{i}" for i in range(12)]
    summary = summarize_metrics(*_accumulated(maps, masks, patients=patients), num_draws=30, seed=2)
    draws = torch.randint(12, (30, 12), generator=torch.Generator().manual_seed(2))
    order = torch.tensor(sorted(range(12), key=lambda i: patients[i]))
    functions = {
        "pixel_auroc": compute_pixel_auroc,
        "pixel_ap": compute_pixel_ap,
        "pixel_best_dice": lambda m, k: compute_pixel_best_dice(m, k)[0],
        "pixel_pro": compute_pixel_pro,
    }
    for name, function in functions.items():
        values = torch.tensor([function(maps[order[d]], masks[order[d]]) for d in draws], dtype=torch.float64)
        low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        assert summary["metrics"][name]["low"] == pytest.approx(low, abs=1e-5)
        assert summary["metrics"][name]["high"] == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("case", ["normal", "tiny", "heavy tail", "masked background"])
def test_streaming_intervals_are_close_to_exact_ones(case: str) -> None:
    maps, masks = pixel_case(case, images=24)
    patients = [f"p{i // 2}" for i in range(24)]
    exact = summarize_metrics(*_accumulated(maps, masks, "exact", patients), num_draws=200)["metrics"]
    streaming = summarize_metrics(*_accumulated(maps, masks, "streaming", patients), num_draws=200)["metrics"]
    for name, entry in exact.items():
        for end in ("low", "high"):
            assert streaming[name][end] == pytest.approx(entry[end], abs=0.01)


def test_undefined_metrics_are_none_or_left_out() -> None:
    maps, masks = pixel_case("normal")
    images, pixels = _accumulated(maps[1::2], masks[1::2].clamp(max=0.0), patients=PATIENTS[1::2])
    one_class = images._replace(targets=torch.zeros_like(images.targets))
    summary = summarize_metrics(one_class, pixels, num_draws=20)
    assert list(summary["metrics"]) == ["image_auroc", "image_ap"]
    assert summary["metrics"]["image_auroc"] == {"value": None, "low": None, "high": None, "oracle": False}
    assert any("anomalous" in text for text in summary["warnings"])
    images, pixels = _accumulated(maps, torch.ones_like(masks))
    summary = summarize_metrics(images, pixels, num_draws=20)
    assert summary["metrics"]["pixel_auroc"]["value"] is None
    assert summary["metrics"]["pixel_best_dice"]["value"] == 1.0
    assert any("no annotated pixel is normal" in text for text in summary["warnings"])
    json.dumps(summary, allow_nan=False)


def test_large_error_bound_is_warned_of_with_the_remedy() -> None:
    for case, expected in (("narrow", True), ("heavy tail", False)):
        summary = summarize_metrics(*_accumulated(*pixel_case(case, images=24), "streaming", PATIENTS * 2), num_draws=0)
        assert any("raise bits" in text for text in summary["warnings"]) is expected


def test_nothing_evaluated_gives_nothing() -> None:
    summary = summarize_metrics(ImageAccumulator().gathered(), PixelAccumulator().gathered())
    assert summary["metrics"] == {}
    assert summary["counts"]["images"] == 0
    json.dumps(summary, allow_nan=False)


def test_without_draws_or_patients_there_are_values_only() -> None:
    maps, masks = pixel_case("normal")
    pixels = PixelAccumulator()
    pixels.update(maps, masks)
    images, _ = _accumulated(maps, masks)
    for summary in (
        summarize_metrics(images, pixels.gathered(), num_draws=0),
        summarize_metrics(images, pixels.gathered()),
    ):
        assert summary["metrics"]["pixel_ap"]["low"] is None
        assert summary["metrics"]["pixel_ap"]["value"] > 0.0
