# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import Evaluator

from monai_anomaly.functional import average_precision, best_dice, per_region_overlap, roc_auc
from monai_anomaly.handlers import AnomalyMetrics, ImageAP, ImageAUROC, PixelAP, PixelAUROC, PixelBestDice, PixelPRO

NAMES = ["image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro"]


def _samples(count: int = 10) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index in range(count):
        label = torch.zeros(1, 9, 9)
        label[0, 2 : 2 + index % 3 * 2, 3:6] = 1.0
        score_map = torch.randn(1, 9, 9, generator=generator) + label
        target = int(label.max())
        patient = f"p{index // 2}"
        samples.append({"image": score_map, "label": label, "target": target, "patient": patient, "index": index})
    return samples


def _expected(samples: list[dict[str, Any]]) -> dict[str, float]:
    maps, labels = (torch.stack([sample[key] for sample in samples]) for key in ("image", "label"))
    scores, targets = maps.flatten(1).amax(1), torch.tensor([sample["target"] for sample in samples])
    return {
        "image_auroc": roc_auc(scores, targets),
        "image_ap": average_precision(scores, targets),
        "pixel_auroc": roc_auc(maps, labels),
        "pixel_ap": average_precision(maps, labels),
        "pixel_best_dice": best_dice(maps, labels)[0],
        "pixel_pro": per_region_overlap(maps, labels),
    }


class MapEvaluator(Evaluator):
    """An evaluator whose anomaly map is the image itself."""

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        maps = MetaTensor(batchdata["image"])
        return {**batchdata, "anomaly_map": maps, "score": maps.flatten(1).amax(1, keepdim=True)}


def _evaluate(samples: list[dict[str, Any]], **options: Any) -> MapEvaluator:
    loader = DataLoader(Dataset(samples), batch_size=4, num_workers=0)
    evaluator = MapEvaluator(device=torch.device("cpu"), val_data_loader=loader, **options)
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("decollate", [True, False])
@pytest.mark.parametrize("as_key", [True, False])
def test_all_metrics_reach_the_state(decollate: bool, as_key: bool) -> None:
    samples, metrics = _samples(), AnomalyMetrics(num_draws=50)
    options: dict[str, Any] = {"key_val_metric": {"image_auroc": metrics}} if as_key else {"val_handlers": [metrics]}
    state = _evaluate(samples, decollate=decollate, **options).state
    expected = _expected(samples)
    assert list(state.metrics) == NAMES
    for name, value in expected.items():
        assert state.metrics[name] == pytest.approx(value, abs=1e-9)
        entry = state.metric_intervals[name]
        assert entry["value"] == state.metrics[name]
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert entry["oracle"] is (name == "pixel_best_dice")
    assert state.metric_summary["counts"]["patients"] == 5
    if as_key:
        assert state.best_metric == pytest.approx(expected["image_auroc"])


def test_a_second_run_starts_afresh() -> None:
    samples, metrics = _samples(), AnomalyMetrics(num_draws=0)
    evaluator = _evaluate(samples, val_handlers=[metrics])
    first = dict(evaluator.state.metrics)
    evaluator.run()
    assert evaluator.state.metrics == first
    assert evaluator.state.metric_summary["counts"]["images"] == len(samples)


@pytest.mark.parametrize(
    ("handler", "name"),
    zip((ImageAUROC, ImageAP, PixelAUROC, PixelAP, PixelBestDice, PixelPRO), NAMES, strict=True),
)
def test_each_metric_serves_as_key_metric(handler, name: str) -> None:
    samples = _samples()
    state = _evaluate(samples, key_val_metric={name: handler()}).state
    assert state.metrics == {name: pytest.approx(_expected(samples)[name], abs=1e-9)}
    assert state.best_metric == state.metrics[name]


def test_options_reach_the_metrics() -> None:
    samples = _samples()
    state = _evaluate(samples, val_handlers=[AnomalyMetrics(mode="streaming", max_fpr=0.1, num_draws=0)]).state
    assert state.metric_summary["settings"]["pixel_mode"] == "streaming"
    maps, labels = (torch.stack([sample[key] for sample in samples]) for key in ("image", "label"))
    bound = state.metric_summary["settings"]["pixel_error_bounds"]["pixel_pro"]
    assert abs(state.metrics["pixel_pro"] - per_region_overlap(maps, labels, 0.1)) <= bound + 1e-9
    assert list(_evaluate(samples, val_handlers=[AnomalyMetrics(pixel=False)]).state.metrics) == NAMES[:2]
    cut = _evaluate(samples, key_val_metric={"pixel_pro": PixelPRO(max_fpr=0.1)}).state.metrics["pixel_pro"]
    assert cut == pytest.approx(per_region_overlap(maps, labels, 0.1), abs=1e-9)


def test_missing_class_gives_nan_and_one_warning() -> None:
    healthy = [{**sample, "target": 0, "label": torch.zeros(1, 9, 9)} for sample in _samples()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = _evaluate(healthy, val_handlers=[AnomalyMetrics(num_draws=10)]).state
    assert list(state.metrics) == ["image_auroc", "image_ap"]
    assert all(math.isnan(value) for value in state.metrics.values())
    ours = [str(w.message) for w in caught if "undefined metrics" in str(w.message)]
    assert len(ours) == 1 and "none of the 10 evaluated images is anomalous" in ours[0]


def test_undefined_key_metric_is_nan_rather_than_absent() -> None:
    unlabeled = [{key: value for key, value in sample.items() if key != "label"} for sample in _samples()]
    with pytest.warns(UserWarning, match="pixel_ap"):
        state = _evaluate(unlabeled, key_val_metric={"pixel_ap": AnomalyMetrics(num_draws=0)}).state
    assert math.isnan(state.metrics["pixel_ap"])
    assert state.metrics["image_auroc"] == pytest.approx(_expected(_samples())["image_auroc"])


def test_stale_metrics_do_not_survive() -> None:
    metrics = AnomalyMetrics(num_draws=0)
    evaluator = _evaluate(_samples(), val_handlers=[metrics])
    assert "pixel_ap" in evaluator.state.metrics
    for sample in evaluator.data_loader.dataset.data:
        sample["label"] = torch.zeros(1, 9, 9)
    evaluator.run()
    assert "pixel_ap" not in evaluator.state.metrics


def test_bad_arguments_are_refused() -> None:
    for options, word in (
        ({"num_draws": -1}, "num_draws"),
        ({"level": 95}, "level"),
        ({"max_fpr": 0}, "max_fpr"),
        ({"mode": "x"}, "mode"),
        ({"bits": 40}, "bits"),
    ):
        with pytest.raises(ValueError, match=word):
            AnomalyMetrics(**options)
    with pytest.raises(ValueError, match="val_mean_dice"):
        AnomalyMetrics().attach(Engine(lambda engine, batch: None), "val_mean_dice")
    with pytest.raises(ValueError, match="pixel_ap"):
        AnomalyMetrics(pixel=False).attach(Engine(lambda engine, batch: None), "pixel_ap")
