# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..handlers import draw_overlay
from ..handlers.overlay_writer import saved_map
from ..transforms import LoadImageChecked
from ..utils import read_csv, write_json, write_text
from ..visualize.comparison_page import ComparisonRow, Example, render_comparison
from ..visualize.gallery import select_gallery
from ..visualize.report_table import baseline_name, metric_name
from .comparison import COLUMN, DATASET, METRIC, compare_with_best, evaluation_folders
from .matrix import Matrix
from .table import write_tables

NUM_EXAMPLES = 6
_METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro")
_TARGETS = {"0": "healthy", "1": "anomalous"}


def write_comparison(matrix: Matrix, output_dir: str | os.PathLike[str], dataset_dir: str | os.PathLike[str]) -> Path:
    """Write ``comparison.html`` and ``comparison.json`` of a comparison whose methods are all evaluated.

    Args:
        matrix: of :func:`~monai_anomaly.benchmark.comparison.comparison_matrix`.
        output_dir: folder of the matrix; ``table.md`` and ``table.json`` are written there, too.
        dataset_dir: folder that the images' names are relative to.

    Raises:
        ValueError: when the methods have not scored the same images.

    Returns:
        Path of the page.
    """
    output = Path(output_dir)
    write_tables(matrix, output)
    result = json.loads((output / "table.json").read_text(encoding="utf-8"))[DATASET]
    folders = evaluation_folders(matrix, output)
    against = compare_with_best(folders)
    cells = {name: result["cells"][name][COLUMN] for name in folders}
    order = sorted(cells, key=lambda name: (name != against["best"], -cells[name][METRIC]["value"]))
    write_json(output / "comparison.json", {**against, "cells": {name: cells[name] for name in order}})
    metrics = [metric for metric in _METRICS if any(metric in entries for entries in cells.values())]
    rows = [_method_row(name, cells[name], metrics, against, name in result["transductive"]) for name in order]
    for name, entries in result["baselines"].items():
        note = "no learning" + (", inverted scores would be better" if _is_inverted(entries) else "")
        rows.append(ComparisonRow(baseline_name(name), [*_cells(entries, metrics), None], note, is_method=False))
    page = render_comparison(
        "Which method?",
        [*map(metric_name, metrics), "Best less this one"],
        rows,
        _note(against, matrix),
        order,
        _examples(order, folders, Path(dataset_dir)),
        f"Test images of fixed ranks of the score of {against['best']}, of each class the highest, the lowest and some "
        "between. Each method has one color scale, from the smallest to the largest value here.",
        result["counts"],
    )
    write_text(output / "comparison.html", page)
    return output / "comparison.html"


def _is_inverted(entries: Mapping[str, Any]) -> bool:
    high = entries.get(METRIC, {}).get("high")
    return high is not None and high < 0.5


def _method_row(
    name: str, entries: Mapping[str, Any], metrics: Sequence[str], against: Mapping[str, Any], transductive: bool
) -> ComparisonRow:
    difference = against["differences"].get(name)
    last = ("best", "") if difference is None else _difference(difference)
    note = "transductive: learned from the test images" if transductive else ""
    return ComparisonRow(name, [*_cells(entries, metrics), last], note)


def _cells(entries: Mapping[str, Any], metrics: Sequence[str]) -> list[tuple[str, str] | None]:
    found = [entries.get(metric) for metric in metrics]
    return [None if cell is None or cell["value"] is None else (f"{cell['value']:.3f}", _ends(cell)) for cell in found]


def _ends(cell: Mapping[str, Any]) -> str:
    return "" if cell.get("low") is None else f"[{cell['low']:.3f}, {cell['high']:.3f}]"


def _difference(cell: Mapping[str, Any]) -> tuple[str, str]:
    if cell["low"] is None:
        return f"{cell['value']:+.3f}", ""
    told = "told apart" if cell["low"] > 0 else "not told apart"
    return f"{cell['value']:+.3f}", f"[{cell['low']:+.3f}, {cell['high']:+.3f}] {told}"


def _note(against: Mapping[str, Any], matrix: Matrix) -> str:
    seeds = matrix.datasets[DATASET]["seeds"]
    several = (
        f" Means of the seeds {', '.join(map(str, seeds))}."
        if len(seeds) > 1
        else f" One training each, seed {seeds[0]}."
    )
    name = metric_name(METRIC)
    return (
        f"{against['best']} has the largest {name}. In brackets: 95 % bootstrap intervals over patients. Last column: "
        f"how much larger its {name} is, with the interval of the difference over the same patients; where that has "
        "zero in it, this test set does not tell the two apart. The best was chosen on these very images: its lead is "
        f"flattered.{several}"
    )


def _examples(order: Sequence[str], folders: Mapping[str, Sequence[Path]], dataset_dir: Path) -> list[Example]:
    """Pictures of a few images and of their maps, those of the first seed."""
    scored = {name: {row["image"]: row for row in read_csv(folders[name][0] / "scores.csv")} for name in order}
    rows = list(scored[order[0]].values())
    chosen = select_gallery([float(row["score"]) for row in rows], [_target(row) for row in rows], NUM_EXAMPLES)
    images = [rows[i]["image"] for i in chosen]
    sources = {image: str(dataset_dir / image) for image in images}
    loaded = {image: LoadImageChecked()(source) for image, source in sources.items()}
    maps = {name: folders[name][0] / "maps" for name in order}
    spans = {}
    for name in order:
        values = [np.asarray(saved_map(sources[image], maps[name], loaded[image])) for image in images]
        low, high = (float(pick(part.min() if pick is min else part.max() for part in values)) for pick in (min, max))
        spans[name] = (low, max(high, low + float(np.finfo(np.float32).eps)))
    examples = []
    for image in images:
        kind = _TARGETS.get(scored[order[0]][image]["target"], "unknown")
        plain = draw_overlay(sources[image], maps[order[0]], spans[order[0]], opacity=0)
        pictures = [
            (draw_overlay(sources[image], maps[name], spans[name]), f"{name} {float(scored[name][image]['score']):.4g}")
            for name in order
        ]
        examples.append(Example((plain, f"{Path(image).name}, {kind}"), pictures))
    return examples


def _target(row: Mapping[str, str]) -> int | None:
    return int(row["target"]) if row["target"] in _TARGETS else None
