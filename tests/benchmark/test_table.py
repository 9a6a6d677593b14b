# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from test_matrix import CONTENT

from monai_anomaly.benchmark.matrix import Matrix
from monai_anomaly.benchmark.table import collect, write_tables

MATRIX = Matrix(**CONTENT)
TARGETS = np.arange(60) % 2
PATIENTS = [f"p{i // 2}" for i in range(60)]


def write_run(folder: Path, scores: np.ndarray, **changed: Any) -> None:
    """What an evaluation leaves behind."""
    folder.mkdir(parents=True)
    (job,) = [job for job in MATRIX.jobs() if folder.parent.match(str(job.folder))]
    origin = job.origin(folder.name) | changed
    (folder.parent / "job.json").write_text(json.dumps({str(folder): {"origin": origin}}))
    with open(folder / "scores.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient", "target", "score"])
        writer.writerows((f"{i}.png", PATIENTS[i], TARGETS[i], scores[i]) for i in range(60))
    pixel = {"value": 0.25, "low": 0.2, "high": 0.3, "oracle": False}
    baseline = {"image_auroc": {"value": 0.19, "low": 0.1, "high": 0.3}}
    counts = {"images": 60, "prevalence": 0.5, "patients": 30, "pixel_prevalence": 0.01}
    content = {"metrics": {"pixel_ap": pixel}, "baselines": {"sharpness": baseline}, "counts": counts}
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.fixture
def results(tmp_path: Path) -> dict[int, np.ndarray]:
    """Scores of two seeds of one training; the other training has one seed only."""
    scores = {seed: TARGETS * 0.8 + np.random.default_rng(seed).normal(size=60) for seed in (0, 1)}
    for seed, values in scores.items():
        write_run(tmp_path / "sample" / "plain" / f"seed{seed}" / "rec", values)
    write_run(tmp_path / "sample" / "slow" / "seed0" / "rec", scores[0])
    return scores


def test_a_cell_is_the_mean_over_seeds(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    cells = collect(MATRIX, tmp_path)["sample"]["cells"]["AE"]["plain"]
    aurocs = [roc_auc_score(TARGETS, scores) for scores in results.values()]
    aps = [average_precision_score(TARGETS, scores) for scores in results.values()]
    assert cells["image_auroc"]["value"] == pytest.approx(np.mean(aurocs))
    assert cells["image_ap"]["value"] == pytest.approx(np.mean(aps))
    assert cells["image_auroc"]["seed_low"] == pytest.approx(min(aurocs))
    assert cells["image_auroc"]["seed_high"] == pytest.approx(max(aurocs))
    assert cells["pixel_ap"] == {"value": 0.25, "low": None, "high": None}


def test_interval_agrees_with_a_slow_bootstrap_over_patients(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    cell = collect(MATRIX, tmp_path)["sample"]["cells"]["AE"]["plain"]["image_auroc"]
    generator = np.random.default_rng(5)
    means = []
    for _ in range(1000):
        drawn = generator.integers(30, size=30)
        images = np.concatenate([2 * drawn, 2 * drawn + 1])
        means.append(np.mean([roc_auc_score(TARGETS[images], scores[images]) for scores in results.values()]))
    assert cell["low"] == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert cell["high"] == pytest.approx(np.quantile(means, 0.975), abs=0.02)


@pytest.mark.parametrize(
    "changed", [{"bundle": "memae"}, {"source": {"where": {"a": "b"}}}, {"training": {}}, {"evaluation": {"x": 1}}]
)
def test_results_of_other_settings_do_not_count(
    tmp_path: Path, results: dict[int, np.ndarray], changed: dict[str, Any]
) -> None:
    shutil.rmtree(tmp_path / "sample/plain/seed1/rec")
    write_run(tmp_path / "sample/plain/seed1/rec", results[1], **changed)
    result = collect(MATRIX, tmp_path)["sample"]
    assert "AE" not in result["cells"] or "plain" not in result["cells"]["AE"]
    assert result["finished"] == 2 and result["expected"] == 4


def test_an_unfinished_cell_is_said_to_be_so(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    result = collect(MATRIX, tmp_path)["sample"]
    assert "slow" not in result["cells"]["AE"]
    assert (result["finished"], result["expected"]) == (3, 4)
    text = write_tables(MATRIX, tmp_path).read_text()
    assert "Unfinished: 3 of 4 evaluations." in text
    assert "50.0% of the images anomalous, 1.00% of the annotated pixels" in text
    assert "| *sharpness (no learning)* | 0.190 [0.100, 0.300] | |" in text
    assert "| AE | " in text and " | – |" in text
