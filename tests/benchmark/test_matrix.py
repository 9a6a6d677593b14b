# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.benchmark.matrix import Matrix

REPOSITORY = Path(__file__).resolve().parents[2]
CONTENT: dict[str, Any] = {
    "name": "small",
    "datasets": {"sample": {"seeds": [0, 1], "overrides": {"max_epochs": 2}}},
    "trainings": {"plain": {"bundle": "ae"}, "slow": {"bundle": "ae", "overrides": {"learning_rate": 1e-5}}},
    "evaluations": {"rec": {}},
    "rows": [{"label": "AE", "cells": {"plain": ["plain", "rec"], "slow": ["slow", "rec"]}}],
}


def write_matrix(folder: Path, **changes: Any) -> Path:
    """A matrix file with some keys changed."""
    path = folder / "matrix.json"
    path.write_text(json.dumps(CONTENT | changes))
    return path


def test_jobs_are_data_sets_times_seeds_times_trainings(tmp_path: Path) -> None:
    jobs = Matrix.read(write_matrix(tmp_path)).jobs()
    assert [(job.dataset, job.seed, job.training) for job in jobs] == [
        ("sample", 0, "plain"),
        ("sample", 0, "slow"),
        ("sample", 1, "plain"),
        ("sample", 1, "slow"),
    ]
    assert jobs[3].overrides == {"max_epochs": 2, "learning_rate": 1e-5, "seed": 1}
    assert len({job.folder for job in jobs}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "must have the keys"),
        ({"datasets": {"sample": {"seeds": [0], "where-eval": {}}}}, "where-eval"),
        ({"datasets": {"sample": {}}}, "needs seeds"),
        ({"rows": [{"label": "AE", "cells": {"plain": ["missing", "rec"]}}]}, "names nothing: missing"),
        ({"rows": [{"label": "AE", "cells": {"plain": ["plain", "missing"]}}]}, "names nothing: plain, missing"),
    ],
)
def test_a_wrong_matrix_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matrix.read(write_matrix(tmp_path, **changes))


def test_data_that_are_not_embedded_need_a_folder(tmp_path: Path) -> None:
    matrix = Matrix.read(write_matrix(tmp_path, datasets={"nih": {"index": "cxr/index.csv", "seeds": [0]}}))
    with pytest.raises(ValueError, match="--data"):
        matrix.prepare(None, tmp_path)


def test_table_2_is_complete(tmp_path: Path, shared_data: Path) -> None:
    matrix = Matrix.read(REPOSITORY / "bench" / "d2ue_table2.json")
    data = matrix.prepare(shared_data, tmp_path)
    assert set(data) == {"sample", "nih", "lgg_flair", "brain_tumor_mri"}
    assert matrix.datasets["sample"]["seeds"] == [0, 1, 2]
    assert len(matrix.rows) == 5 and all(set(row["cells"]) == {"AE", "MemAE", "AE-U"} for row in matrix.rows)
    # the index's README: 170 healthy and 179 anomalous test slices whose levels are matched
    testing = json.loads(Path(data["lgg_flair"]["datalist"]).read_text())["testing"]
    assert [sum(item["target"] == target for item in testing) for target in (0, 1)] == [170, 179]
