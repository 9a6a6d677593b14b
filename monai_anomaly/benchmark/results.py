# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import torch

from ..engines.step_runs import JOB_FILE
from ..functional.bootstrap import draw_score_statistics, percentile_interval
from ..functional.chi_square import chi_square_distance
from ..functional.curves import IMAGE_STATISTICS
from ..utils import finite_or_none, read_csv
from .job import Job
from .matrix import DataSet, Matrix
from .welch import welch_test

CHI_SQUARE = "chi_square"
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro")
_SPREAD = 1.96

Cell = dict[str, Any]


def collect(matrix: Matrix, output_dir: str | Path, num_draws: int = 1000) -> dict[str, Any]:
    """Read the results of a matrix.

    A cell of several seeds is the mean over the seeds; its interval comes from drawing patients, the same ones for all
    seeds, so it speaks of the test set. ``seed_low``, ``seed_high`` and ``seed_spread``, 1.96 standard deviations,
    speak of the training; so does ``welch``, the test against the row that ``compare_with`` names.

    Args:
        matrix: what was run.
        output_dir: folder of the matrix.
        num_draws: bootstrap draws.

    Returns:
        By data set: ``cells`` (row label -> column -> metric -> value, low, high, ...), ``transductive`` (row label ->
        columns whose method learned from the test images), ``baselines``, ``counts``, ``finished`` and ``expected``
        evaluations, ``seeds``, ``overrides``. Results of other settings, left from a matrix that has changed since, do
        not count as finished.
    """
    jobs, output = matrix.jobs_by_cell(), Path(output_dir)
    return {data.name: _collect_dataset(matrix, data, jobs, output, num_draws) for data in matrix.data_sets()}


def _collect_dataset(
    matrix: Matrix, data: DataSet, jobs: Mapping[tuple[str, str, int], Job], output: Path, num_draws: int
) -> dict[str, Any]:
    seeds = data.content["seeds"]
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    transductive: dict[str, list[str]] = {}
    finished, any_metrics = 0, None
    for row in matrix.rows:
        for column, (training, evaluation) in row["cells"].items():
            wanted = [jobs[data.name, training, seed] for seed in seeds]
            done = [output / job.folder / evaluation for job in wanted if _is_done(job, evaluation, output)]
            finished += len(done)
            if len(done) == len(seeds):
                metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in done]
                any_metrics = metrics[0]
                image = _image_cells([read_csv(run / "scores.csv") for run in done], num_draws)
                cells.setdefault(row["label"], {})[column] = image | _pixel_cells(metrics)
                if any(entry.get("transductive") for entry in metrics):
                    transductive.setdefault(row["label"], []).append(column)
    if matrix.compare_with is not None:
        _compare(cells, matrix.compare_with)
    return {
        "cells": cells,
        "transductive": transductive,
        "baselines": (any_metrics or {}).get("baselines", {}),
        "counts": (any_metrics or {}).get("counts", {}),
        "finished": finished,
        "expected": len(seeds) * sum(len(row["cells"]) for row in matrix.rows),
        "seeds": seeds,
        "overrides": data.content.get("overrides", {}),
    }


def _compare(cells: Mapping[str, Mapping[str, Mapping[str, Cell]]], reference: str) -> None:
    """Test each cell of several seeds against the one of the same column in the row ``reference``."""
    for label, columns in cells.items():
        for column, metrics in columns.items():
            others = cells.get(reference, {}).get(column, {})
            for name, cell in metrics.items():
                a, b = cell.get("seeds", []), others.get(name, {}).get("seeds", [])
                if label != reference and min(len(a), len(b)) > 1:
                    test = welch_test(a, b)
                    cell["welch"] = {"difference": test.difference, "p_value": finite_or_none(test.p_value)}


def _is_done(job: Job, evaluation: str, output: Path) -> bool:
    """Whether an evaluation has been made with the settings that the matrix has now."""
    folder = output / job.folder
    files = (folder / JOB_FILE, folder / evaluation / "metrics.json", folder / evaluation / "scores.csv")
    if not all(file.is_file() for file in files):
        return False
    steps = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    origins = [step.get("origin") for path, step in steps.items() if Path(path).name == evaluation]
    return job.origin(evaluation) in origins


def _image_cells(runs: Sequence[Sequence[Mapping[str, str]]], num_draws: int) -> dict[str, Cell]:
    """Mean over seeds of each image metric, with one interval over patients."""
    values, draws = draw_runs(runs, num_draws)
    cells = {metric: _seed_cell(values[metric]) for metric in values}
    for metric in IMAGE_STATISTICS:
        cells[metric] |= percentile_interval(cells[metric]["value"], draws[metric])
    return cells


def draw_runs(
    runs: Sequence[Sequence[Mapping[str, str]]], num_draws: int
) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Image metrics of each run, and their means over the runs on resampled patients.

    The draws depend on the patients only: those of several methods on the same images are paired.

    Args:
        runs: rows of ``scores.csv``, of each seed.
        num_draws: bootstrap draws D.

    Returns:
        values by metric, one a run, and draws (D,) by metric, which the χ² distance has none of.
    """
    values: dict[str, list[float]] = {metric: [] for metric in (*IMAGE_STATISTICS, CHI_SQUARE)}
    draws: dict[str, list[torch.Tensor]] = {metric: [] for metric in IMAGE_STATISTICS}
    for rows in runs:
        scores = torch.tensor([float(row["score"]) for row in rows], dtype=torch.float64)
        targets = torch.tensor([int(float(row["target"])) for row in rows])
        patients = [row["patient"] for row in rows]
        value, drawn = draw_score_statistics(IMAGE_STATISTICS, scores, targets, patients, num_draws, seed=0)
        for metric in IMAGE_STATISTICS:
            values[metric].append(value[metric])
            draws[metric].append(drawn[metric])
        values[CHI_SQUARE].append(100 * chi_square_distance(scores[targets == 0], scores[targets == 1]))
    return values, {metric: torch.stack(drawn).mean(0) for metric, drawn in draws.items()}


def _seed_cell(values: Sequence[float]) -> Cell:
    several = len(values) > 1
    return {
        "value": sum(values) / len(values),
        "low": None,
        "high": None,
        "seeds": list(values),
        "seed_low": min(values),
        "seed_high": max(values),
        "seed_spread": _SPREAD * stdev(values) if several else None,
    }


def _pixel_cells(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Cell]:
    """Pixel metrics as the evaluation wrote them; their intervals are those of one run, so several seeds have none."""
    cells = {}
    for name in PIXEL_METRICS:
        entries = [entry["metrics"][name] for entry in metrics if name in entry["metrics"]]
        entries = [entry for entry in entries if entry["value"] is not None]
        if entries and len(entries) == len(metrics):
            mean = sum(entry["value"] for entry in entries) / len(entries)
            single = len(entries) == 1
            ends = (entries[0]["low"], entries[0]["high"]) if single else (None, None)
            cells[name] = {"value": mean, "low": ends[0], "high": ends[1]}
    return cells
