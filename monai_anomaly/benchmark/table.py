# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..engines.step_runs import JOB_FILE
from ..functional.bootstrap import draw_score_statistics, percentile_interval
from ..functional.curves import IMAGE_STATISTICS
from ..utils import write_json, write_text
from .matrix import Job, Matrix

_PIXEL = {
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "pixel_best_dice": "Best Dice (oracle threshold)",
    "pixel_pro": "PRO",
}
_IMAGE = {"image_auroc": "Image AUROC", "image_ap": "Image AP"}

Cell = dict[str, Any]


def collect(matrix: Matrix, output_dir: str | Path, num_draws: int = 1000) -> dict[str, Any]:
    """Read the results of a matrix.

    A cell of several seeds is the mean over the seeds; its interval comes from drawing patients, the same ones for all
    seeds, so it speaks of the test set, and ``seed_low`` and ``seed_high`` speak of the training.

    Args:
        matrix: what was run.
        output_dir: folder of the matrix.
        num_draws: bootstrap draws.

    Returns:
        By data set: ``cells`` (row label -> column -> metric -> value, low, high, ...), ``baselines``, ``counts``,
        ``finished`` and ``expected`` evaluations, ``seeds``, ``overrides``. Results of other settings, left from a
        matrix that has changed since, do not count as finished.
    """
    output = Path(output_dir)
    return {name: _collect_dataset(matrix, name, output / name, num_draws) for name in matrix.datasets}


def _collect_dataset(matrix: Matrix, name: str, folder: Path, num_draws: int) -> dict[str, Any]:
    jobs = {(job.training, job.seed): job for job in matrix.jobs() if job.dataset == name}
    seeds = matrix.datasets[name]["seeds"]
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    finished, any_metrics = 0, None
    for row in matrix.rows:
        for column, (training, evaluation) in row["cells"].items():
            done = [
                folder / training / f"seed{seed}" / evaluation
                for seed in seeds
                if _is_done(jobs[training, seed], evaluation, folder.parent)
            ]
            finished += len(done)
            if len(done) == len(seeds):
                metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in done]
                any_metrics = metrics[0]
                image = _image_cells([_read_scores(run / "scores.csv") for run in done], num_draws)
                cells.setdefault(row["label"], {})[column] = image | _pixel_cells(metrics)
    return {
        "cells": cells,
        "baselines": (any_metrics or {}).get("baselines", {}),
        "counts": (any_metrics or {}).get("counts", {}),
        "finished": finished,
        "expected": len(seeds) * sum(len(row["cells"]) for row in matrix.rows),
        "seeds": seeds,
        "overrides": matrix.datasets[name].get("overrides", {}),
    }


def _is_done(job: Job, evaluation: str, output: Path) -> bool:
    """Whether an evaluation has been made with the settings that the matrix has now."""
    folder = output / job.folder
    files = (folder / JOB_FILE, folder / evaluation / "metrics.json", folder / evaluation / "scores.csv")
    if not all(file.is_file() for file in files):
        return False
    steps = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    origins = [step.get("origin") for path, step in steps.items() if Path(path).name == evaluation]
    return job.origin(evaluation) in origins


def _read_scores(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _image_cells(runs: Sequence[Sequence[Mapping[str, str]]], num_draws: int) -> dict[str, Cell]:
    """Mean over seeds of each image metric, with one interval over patients."""
    values: dict[str, list[float]] = {metric: [] for metric in IMAGE_STATISTICS}
    draws: dict[str, list[torch.Tensor]] = {metric: [] for metric in IMAGE_STATISTICS}
    for rows in runs:
        scores = torch.tensor([float(row["score"]) for row in rows], dtype=torch.float64)
        targets = torch.tensor([int(float(row["target"])) for row in rows])
        patients = [row["patient"] for row in rows]
        value, drawn = draw_score_statistics(IMAGE_STATISTICS, scores, targets, patients, num_draws, seed=0)
        for metric in IMAGE_STATISTICS:
            values[metric].append(value[metric])
            draws[metric].append(drawn[metric])
    cells = {}
    for metric in IMAGE_STATISTICS:
        mean = sum(values[metric]) / len(values[metric])
        cells[metric] = dict(percentile_interval(mean, torch.stack(draws[metric]).mean(0)))
        cells[metric] |= {"seed_low": min(values[metric]), "seed_high": max(values[metric])}
    return cells


def _pixel_cells(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Cell]:
    """Pixel metrics as the evaluation wrote them; their intervals are those of one run, so several seeds have none."""
    cells = {}
    for name in _PIXEL:
        entries = [entry["metrics"][name] for entry in metrics if name in entry["metrics"]]
        entries = [entry for entry in entries if entry["value"] is not None]
        if entries and len(entries) == len(metrics):
            mean = sum(entry["value"] for entry in entries) / len(entries)
            single = len(entries) == 1
            ends = (entries[0]["low"], entries[0]["high"]) if single else (None, None)
            cells[name] = {"value": mean, "low": ends[0], "high": ends[1]}
    return cells


def write_tables(matrix: Matrix, output_dir: str | Path) -> Path:
    """Write ``table.json`` and ``table.md`` into the folder of a matrix.

    Returns:
        Path of the Markdown file.
    """
    output = Path(output_dir)
    results = collect(matrix, output)
    write_json(output / "table.json", results)
    path = output / "table.md"
    write_text(path, "\n".join(_markdown(matrix, results)) + "\n")
    return path


def _markdown(matrix: Matrix, results: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, result in results.items():
        counts = result["counts"]
        settings = ", ".join(f"{key} {value}" for key, value in result["overrides"].items())
        seeds = ", ".join(str(seed) for seed in result["seeds"])
        lines += [f"## {name}", ""]
        if counts:
            lines += [
                f"{counts['images']} test images of {counts['patients']} patients; {_prevalence(counts)}; "
                f"{settings}{'; ' if settings else ''}seeds {seeds}. In brackets: 95 % bootstrap interval over patients"
                + (", in braces: lowest and highest seed." if len(result["seeds"]) > 1 else "."),
                "",
            ]
        if result["finished"] < result["expected"]:
            lines += [f"Unfinished: {result['finished']} of {result['expected']} evaluations.", ""]
        for metric, title in (_IMAGE | _PIXEL).items():
            lines += _metric_table(matrix, result, metric, title)
    return lines


def _prevalence(counts: Mapping[str, Any]) -> str:
    """What an AP has to be read against."""
    text = f"{counts['prevalence']:.1%} of the images anomalous"
    pixels = counts.get("pixel_prevalence")
    return text if pixels is None else f"{text}, {pixels:.2%} of the annotated pixels"


def _metric_table(matrix: Matrix, result: Mapping[str, Any], metric: str, title: str) -> list[str]:
    columns = list(matrix.rows[0]["cells"])
    cells = result["cells"]
    if not any(metric in cell for row in cells.values() for cell in row.values()):
        return []
    lines = [f"**{title}**", "", "| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for row in matrix.rows:
        entries = [cells.get(row["label"], {}).get(column, {}).get(metric) for column in columns]
        lines.append(f"| {row['label']} | " + " | ".join(map(_format, entries)) + " |")
    for name, baseline in result["baselines"].items():
        if metric in baseline:
            lines.append(
                f"| *{name.replace('_', ' ')} (no learning)* | {_format(baseline[metric])} |"
                + " |" * (len(columns) - 1)
            )
    return [*lines, ""]


def _format(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["value"] is None:
        return "–"
    text = f"{cell['value']:.3f}"
    if cell.get("low") is not None:
        text += f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    if cell.get("seed_low") is not None and cell["seed_low"] != cell["seed_high"]:
        text += f" {{{cell['seed_low']:.3f}, {cell['seed_high']:.3f}}}"
    return text
