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
from scipy.stats import ttest_ind
from sklearn.metrics import average_precision_score, roc_auc_score
from test_matrix import CONTENT

from monai_anomaly.benchmark.matrix import Matrix
from monai_anomaly.benchmark.results import collect
from monai_anomaly.benchmark.table import significance_mark, write_tables

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


def test_spread_and_histogram_distance_over_seeds(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    cells = collect(MATRIX, tmp_path)["sample"]["cells"]["AE"]["plain"]
    aurocs = [roc_auc_score(TARGETS, scores) for scores in results.values()]
    assert cells["image_auroc"]["seeds"] == pytest.approx(aurocs)
    assert cells["image_auroc"]["seed_spread"] == pytest.approx(1.96 * abs(aurocs[0] - aurocs[1]) / 2**0.5)
    distances = []
    for scores in results.values():
        edges = np.linspace(scores.min(), scores.max(), 51)
        p, q = (np.histogram(scores[target == TARGETS], edges)[0] / (target == TARGETS).sum() for target in (0, 1))
        distances.append(50 * sum((a - b) ** 2 / (a + b) for a, b in zip(p, q, strict=True) if a + b))
    assert cells["chi_square"]["seeds"] == pytest.approx(distances)
    text = write_tables(MATRIX, tmp_path).read_text()
    spread = cells["image_auroc"]["seed_spread"]
    assert f"| AE | {np.mean(aurocs):.3f} ± {spread:.3f} [" in text
    lines = text.partition("**χ² distance of the image scores × 100**")[2].splitlines()
    assert lines[4].startswith(f"| AE | {np.mean(distances):.1f} ±")


def test_rows_are_compared_over_the_seeds(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    write_run(tmp_path / "sample" / "slow" / "seed1" / "rec", results[1] - 3 * TARGETS)
    shutil.rmtree(tmp_path / "sample/slow/seed0/rec")
    write_run(tmp_path / "sample" / "slow" / "seed0" / "rec", results[0] - 3 * TARGETS)
    rows = [
        {"label": "good", "cells": {"x": ["plain", "rec"]}},
        {"label": "bad", "cells": {"x": ["slow", "rec"]}},
        {"label": "the same", "cells": {"x": ["plain", "rec"]}},
    ]
    matrix = Matrix(**CONTENT | {"rows": rows, "compare_with": "good"})
    cells = collect(matrix, tmp_path)["sample"]["cells"]
    good, bad = ([roc_auc_score(TARGETS, scores - shift * TARGETS) for scores in results.values()] for shift in (0, 3))
    found = cells["bad"]["x"]["image_auroc"]["welch"]
    assert found["p_value"] == pytest.approx(ttest_ind(bad, good, equal_var=False).pvalue)
    assert found["difference"] == pytest.approx(np.mean(bad) - np.mean(good))
    assert "welch" not in cells["good"]["x"]["image_auroc"] and "welch" not in cells["bad"]["x"]["pixel_ap"]
    lines = write_tables(matrix, tmp_path).read_text().splitlines()
    assert any(line.startswith("Compared with *good* over the seeds") for line in lines)
    assert next(line for line in lines if line.startswith("| the same")).endswith(" ns |")
    mark = significance_mark(found["p_value"]).replace("*", "\\*")
    assert next(line for line in lines if line.startswith("| bad")).endswith(f"}} {mark} |")


@pytest.mark.parametrize(
    ("p_value", "mark"), [(0.5, "ns"), (0.05, "ns"), (0.049, "**"), (0.01, "**"), (0.0099, "***"), (1e-6, "***")]
)
def test_marks_of_significance(p_value: float, mark: str) -> None:
    assert significance_mark(p_value) == mark


def test_what_learned_from_the_test_images_is_marked(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    metrics = tmp_path / "sample/plain/seed1/rec/metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"transductive": True}))
    assert collect(MATRIX, tmp_path)["sample"]["transductive"] == {"AE": ["plain"]}
    text = write_tables(MATRIX, tmp_path).read_text()
    assert "† transductive: learned from the test images" in text
    assert next(line for line in text.splitlines() if line.startswith("| AE |")).endswith("} † | – |")


def test_ratios_are_the_columns_of_one_table(tmp_path: Path, results: dict[int, np.ndarray]) -> None:
    datasets = {"sample": {"seeds": [0, 1], "unlabeled": {"ratio": [0.2, 1]}, "overrides": {"max_epochs": 2}}}
    rows = [{"label": "AE", "cells": {"score": ["plain", "rec"]}}]
    trainings = {"plain": {"bundle": "ae", "ignores_unlabeled": True}}
    matrix = Matrix(**CONTENT | {"datasets": datasets, "rows": rows, "trainings": trainings})
    found = collect(matrix, tmp_path)
    assert list(found) == ["sample@0.2", "sample@1"] and found["sample@0.2"]["finished"] == 2
    text = write_tables(matrix, tmp_path).read_text()
    assert text.count("## ") == 1 and "| | ratio 0.2 | ratio 1 |" in text
    line = next(line for line in text.splitlines() if line.startswith("| AE |"))
    cells = [cell.strip() for cell in line.split("|")[2:4]]
    assert cells[0] == cells[1] and "±" in cells[0]


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
