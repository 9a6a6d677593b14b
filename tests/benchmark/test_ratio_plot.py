# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.container import ErrorbarContainer
from PIL import Image
from test_matrix import CONTENT

from monai_anomaly.benchmark.matrix import Matrix
from monai_anomaly.benchmark.ratio_plot import plot_ratios
from monai_anomaly.benchmark.table import write_tables

RATIOS = [1.0, 0.0, 0.4]
MATRIX = Matrix(**{**CONTENT, "datasets": {"sample": {"seeds": [0, 1], "unlabeled": {"ratio": RATIOS}}}})
BASELINES = {"mean": {"image_auroc": {"value": 0.6}}, "size": {"image_auroc": {"value": 0.7}}, "other": {}}


def results() -> dict[str, Any]:
    """One column has all ratios, the other one of them."""

    def cell(value: float) -> dict[str, Any]:
        return {"image_auroc": {"value": value, "seed_low": value - 0.1, "seed_high": value + 0.2}}

    found = {}
    for data in MATRIX.data_sets():
        unknown = {"image_auroc": {"value": None}}
        cells = {"plain": cell(0.5 + 0.1 * float(data.ratio or 0)), "slow": cell(0.4) if data.ratio == 0.4 else unknown}
        found[data.name] = {"cells": {"AE": cells}, "baselines": BASELINES}
    return found


def test_marks_are_means_in_the_order_of_the_ratios_and_whiskers_are_seeds() -> None:
    (figure,) = plot_ratios(MATRIX, results()).values()
    (axes,) = figure.axes
    first, second = (container for container in axes.containers if isinstance(container, ErrorbarContainer))
    line, _, (whiskers,) = first.lines
    assert np.allclose(line.get_xdata(), [0, 0.4, 1], atol=0.05)
    assert np.allclose(line.get_ydata(), [0.5, 0.54, 0.6])
    ends = [segment[:, 1] for segment in whiskers.get_segments()]
    assert np.allclose(ends, [[0.4, 0.7], [0.44, 0.74], [0.5, 0.8]])
    assert np.allclose(second.lines[0].get_ydata(), [0.4])
    (dotted,) = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert np.array_equal(dotted.get_ydata(), [0.7, 0.7]) and dotted.get_label() == "size (no learning)"


def test_data_sets_without_ratios_have_no_plot() -> None:
    assert plot_ratios(Matrix(**CONTENT), {}) == {}


def test_the_plot_is_written_beside_the_table(tmp_path: Path) -> None:
    write_tables(MATRIX, tmp_path)  # of nothing yet
    with Image.open(tmp_path / "ratios_sample.png") as picture:
        assert picture.width > picture.height > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratios_sample.png", "table.json", "table.md"]
