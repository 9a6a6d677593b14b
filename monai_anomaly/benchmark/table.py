# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ..utils import atomic_path, write_json, write_text
from .matrix import DataSet, Matrix
from .ratio_plot import plot_ratios
from .results import CHI_SQUARE, collect

_METRICS = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    CHI_SQUARE: "χ² distance of the image scores × 100",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "pixel_best_dice": "Best Dice (oracle threshold)",
    "pixel_pro": "PRO",
}
_DIGITS = {CHI_SQUARE: 1}
_TRANSDUCTIVE = "†"


class _Column(NamedTuple):
    heading: str
    result: Mapping[str, Any]
    name: str


def write_tables(matrix: Matrix, output_dir: str | Path) -> Path:
    """Write ``table.json`` and ``table.md`` into the folder of a matrix.

    A data set with several anomaly ratios gets a plot beside them, ``ratios_NAME.png``.

    Returns:
        Path of the Markdown file.
    """
    output = Path(output_dir)
    results = collect(matrix, output)
    write_json(output / "table.json", results)
    path = output / "table.md"
    write_text(path, "\n".join(_markdown(matrix, results)) + "\n")
    for name, figure in plot_ratios(matrix, results).items():
        with atomic_path(output / f"ratios_{name}.png") as temporary:
            figure.savefig(temporary, dpi=150, format="png")
    return path


def significance_mark(p_value: float) -> str:
    """Mark of a p-value as in the figures of AMAE: ``ns`` from 0.05 on, ``**`` from 0.01 on, ``***`` below.

    Reference:
        B. Bozorgtabar, D. Mahapatra, J.-P. Thiran: "AMAE", MICCAI 2023, Fig. 3.
    """
    return "ns" if p_value >= 0.05 else "**" if p_value >= 0.01 else "***"


def _markdown(matrix: Matrix, results: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    names = list(dict.fromkeys(column for row in matrix.rows for column in row["cells"]))
    for base, group in groupby(matrix.data_sets(), lambda data: data.base):
        columns = [
            _Column(_heading(name, data, len(names)), results[data.name], name) for data in group for name in names
        ]
        lines += [f"## {base}", ""] + _introduction(matrix, [column.result for column in columns])
        for metric in _METRICS:
            lines += _metric_table(matrix, columns, metric)
    return lines


def _heading(column: str, data: DataSet, number: int) -> str:
    if data.ratio is None:
        return column
    return f"ratio {data.ratio:g}" if number == 1 else f"{column}, ratio {data.ratio:g}"


def _introduction(matrix: Matrix, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the tables of one data set show."""
    lines: list[str] = []
    seeds, counts = results[0]["seeds"], next((result["counts"] for result in results if result["counts"]), None)
    settings = "".join(f"{key} {value}, " for key, value in results[0]["overrides"].items())[:-2]
    if counts:
        several = (
            " After ±: 1.96 standard deviations over the seeds; in braces: lowest and highest seed."
            if len(seeds) > 1
            else ""
        )
        lines += [
            f"{counts['images']} test images of {counts['patients']} patients; {_prevalence(counts)}; "
            f"{settings}{'; ' if settings else ''}seeds {', '.join(map(str, seeds))}. "
            f"In brackets: 95 % bootstrap interval over patients.{several}",
            "",
        ]
    if len(seeds) > 1 and matrix.compare_with is not None:
        lines += [
            f"Compared with *{matrix.compare_with}* over the seeds (two-sided test of Welch): ns p ≥ 0.05, "
            f"{_escaped('**')} p < 0.05, {_escaped('***')} p < 0.01.",
            "",
        ]
    if any(result["transductive"] for result in results):
        lines += [f"{_TRANSDUCTIVE} transductive: learned from the test images themselves, without their labels.", ""]
    different = {id(result): result for result in results}.values()
    finished, expected = (sum(result[key] for result in different) for key in ("finished", "expected"))
    if finished < expected:
        lines += [f"Unfinished: {finished} of {expected} evaluations.", ""]
    return lines


def _prevalence(counts: Mapping[str, Any]) -> str:
    """What an AP has to be read against."""
    text = f"{counts['prevalence']:.1%} of the images anomalous"
    pixels = counts.get("pixel_prevalence")
    return text if pixels is None else f"{text}, {pixels:.2%} of the annotated pixels"


def _metric_table(matrix: Matrix, columns: Sequence[_Column], metric: str) -> list[str]:
    rows = {
        row["label"]: [
            column.result["cells"].get(row["label"], {}).get(column.name, {}).get(metric) for column in columns
        ]
        for row in matrix.rows
    }
    if not any(cell is not None for cells in rows.values() for cell in cells):
        return []
    headings = " | ".join(column.heading for column in columns)
    lines = [f"**{_METRICS[metric]}**", "", f"| | {headings} |", "|---|" + "---|" * len(columns)]
    for label, cells in rows.items():
        texts = [_format(cell, _DIGITS.get(metric, 3)) for cell in cells]
        marks = [
            label in column.result["transductive"] and column.name in column.result["transductive"][label]
            for column in columns
        ]
        entries = [f"{text} {_TRANSDUCTIVE}" if mark else text for text, mark in zip(texts, marks, strict=True)]
        lines.append(f"| {label} | " + " | ".join(entries) + " |")
    baselines: Mapping[str, Any] = next(
        (column.result["baselines"] for column in columns if column.result["baselines"]), {}
    )
    for name, baseline in baselines.items():
        if metric in baseline:
            lines.append(
                f"| *{name.replace('_', ' ')} (no learning)* | {_format(baseline[metric], 3)} |"
                + " |" * (len(columns) - 1)
            )
    return [*lines, ""]


def _format(cell: Mapping[str, Any] | None, digits: int) -> str:
    if cell is None or cell["value"] is None:
        return "–"
    text = f"{cell['value']:.{digits}f}"
    if cell.get("seed_spread") is not None:
        text += f" ± {cell['seed_spread']:.{digits}f}"
    if cell.get("low") is not None:
        text += f" [{cell['low']:.{digits}f}, {cell['high']:.{digits}f}]"
    if cell.get("seed_low") is not None and cell["seed_low"] != cell["seed_high"]:
        text += f" {{{cell['seed_low']:.{digits}f}, {cell['seed_high']:.{digits}f}}}"
    p_value = cell.get("welch", {}).get("p_value")
    mark = "" if p_value is None else significance_mark(p_value)
    return f"{text} {_escaped(mark)}".rstrip()


def _escaped(text: str) -> str:
    return text.replace("*", "\\*")  # two marks in a row of Markdown would make what is between them bold
