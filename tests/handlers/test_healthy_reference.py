# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_case import dataset, evaluate, phantom
from monai.transforms import Compose, Resized

from monai_anomaly.data import healthy_items, load_datalist, make_phantom
from monai_anomaly.handlers import AnomalyMetrics, HealthyReference, MetricsWriter, ReportWriter, ScoresWriter
from monai_anomaly.transforms import LoadImageCheckedd, ScaleSourceRanged

PREPARE = Compose(
    [LoadImageCheckedd("image", 2, 1), ScaleSourceRanged("image"), Resized("image", (24, 16), mode="area")]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine test images, and eight validation images, some of them anomalous."""
    path = phantom(tmp_path_factory.mktemp("data"))
    make_phantom(path / "more", size=(36, 24), num_training=0, num_unlabeled=0, num_validation=8, num_testing=0)
    more = json.loads((path / "more" / "datalist.json").read_text())["validation"]
    for item in more:
        item.update({key: f"more/{item[key]}" for key in ("image", "label") if item.get(key)})
    content = json.loads((path / "datalist.json").read_text()) | {"validation": more}
    (path / "datalist.json").write_text(json.dumps(content))
    return path


def items_of(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    return healthy_items(folder / "datalist.json", folder, **settings)


def test_only_healthy_validation_images_are_taken(folder: Path) -> None:
    items, section = items_of(folder), load_datalist(folder / "datalist.json", "validation", folder)
    assert 0 < len(items) < len(section) == 8
    assert [item["image"] for item in items] == [item["image"] for item in section if item["target"] == 0]
    assert all(item["target"] == 0 and "label" not in item for item in items)
    assert [item["image"] for item in items_of(folder, limit=2)] == [items[0]["image"], items[len(items) // 2]["image"]]


@pytest.mark.parametrize("evaluated", ["validation", ["testing", "validation"]])
def test_images_that_are_evaluated_are_no_reference(folder: Path, evaluated: Any) -> None:
    assert items_of(folder, evaluated=evaluated) == []


def test_a_datalist_without_validation_has_no_reference(tmp_path: Path) -> None:
    (tmp_path / "datalist.json").write_text(json.dumps({"testing": [{"image": "a.png", "target": 0}]}))
    assert healthy_items(tmp_path / "datalist.json") == []


def test_the_working_point_is_a_quantile_of_their_scores(folder: Path, tmp_path: Path) -> None:
    items = items_of(folder)
    handlers = [ScoresWriter(tmp_path, folder), HealthyReference(items, PREPARE, batch_size=2, quantile=0.8)]
    evaluator = evaluate(dataset(folder), handlers)
    scores = []
    for item in items:
        image = PREPARE(item)["image"][None].as_tensor()
        scores.append(float(evaluator.inferer(image, evaluator.network)["score"]))
    point = evaluator.state.working_point  # type: ignore[attr-defined]
    assert point["threshold"] == pytest.approx(np.quantile(scores, 0.8), rel=1e-6)
    assert (point["quantile"], point["healthy_images"]) == (0.8, len(items))
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 10, "reference images are not evaluated"


def results(folder: Path, output: Path, items: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    writers = [AnomalyMetrics(num_draws=10), MetricsWriter(output), ReportWriter(output)]
    evaluate(dataset(folder), [HealthyReference(items, PREPARE), *writers])
    return json.loads((output / "metrics.json").read_text()), (output / "report.html").read_text()


def test_the_report_starts_there_and_says_so(folder: Path, tmp_path: Path) -> None:
    items = items_of(folder)
    metrics, page = results(folder, tmp_path, items)
    start = metrics["working_point"]["threshold"]
    assert f'"threshold": {start}' in page
    assert f"(95th percentile of {len(items)} healthy validation images)" in page


def test_without_reference_the_report_says_that_the_threshold_is_of_the_test_set(folder: Path, tmp_path: Path) -> None:
    metrics, page = results(folder, tmp_path, [])
    assert metrics["working_point"] is None
    assert "95th percentile of the healthy images of this very set" in page


@pytest.mark.parametrize("quantile", [0, 1, -0.1, 95])
def test_a_quantile_that_is_none_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        HealthyReference([], PREPARE, quantile=quantile)
