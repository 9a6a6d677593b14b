# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..visualize.report_table import baseline_name, best_baseline
from .matrix import DataSet, Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = "image_auroc"
_SHIFT = 0.012  # of the ratio, by which the whiskers of two rows are apart


def plot_ratios(matrix: Matrix, results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw how the image AUROC of each row depends on the share of anomalous images among the unlabeled ones.

    A mark is the mean over the seeds, its whiskers reach from the lowest to the highest seed. The dotted line is the
    best baseline that needs no learning, as it is measured.

    Args:
        matrix: what was run.
        results: of :func:`monai_anomaly.benchmark.results.collect`.

    Returns:
        A figure for each data set with several ratios, by the name of the data set.
    """
    figures = {}
    for base, group in groupby(matrix.data_sets(), lambda data: data.base):
        drawn = sorted((data for data in group if data.ratio is not None), key=_ratio)
        if len(drawn) > 1:
            figures[base] = _figure(matrix, drawn, results)
    return figures


def _ratio(data: DataSet) -> float:
    return float(data.ratio or 0)


def _figure(matrix: Matrix, drawn: Sequence[DataSet], results: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure  # slow to import, and needed for this alone

    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.5, color="0.8", linewidth=1)
    lines = [(row["label"], column) for row in matrix.rows for column in row["cells"]]
    several = len({column for _, column in lines}) > 1
    for number, (label, column) in enumerate(lines):
        cells = {_ratio(data): results[data.name]["cells"].get(label, {}).get(column, {}).get(METRIC) for data in drawn}
        shift = (number - (len(lines) - 1) / 2) * _SHIFT
        _draw_row(axes, f"{label}, {column}" if several else label, cells, shift)
    _draw_best_baseline(axes, results[drawn[0].name]["baselines"])
    axes.set_xticks([_ratio(data) for data in drawn])
    axes.set_xlabel("share of anomalous images among the unlabeled ones")
    axes.set_ylabel("image AUROC")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def _draw_row(axes: Axes, label: str, cells: Mapping[float, Mapping[str, Any] | None], shift: float) -> None:
    known = {ratio: cell for ratio, cell in cells.items() if cell is not None and cell["value"] is not None}
    values = [cell["value"] for cell in known.values()]
    whiskers = [
        [value - cell.get("seed_low", value) for value, cell in zip(values, known.values(), strict=True)],
        [cell.get("seed_high", value) - value for value, cell in zip(values, known.values(), strict=True)],
    ]
    places = [ratio + shift for ratio in known]
    axes.errorbar(places, values, whiskers, label=label, marker="o", markersize=4, capsize=2, linewidth=1.4)


def _draw_best_baseline(axes: Axes, baselines: Mapping[str, Any]) -> None:
    best = best_baseline(baselines, METRIC)
    if best is not None:
        name, value = best
        axes.axhline(value, color="0.4", linestyle=":", label=f"{baseline_name(name)} (no learning)")
