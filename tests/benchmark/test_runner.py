# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from test_matrix import CONTENT

from monai_anomaly.benchmark.__main__ import main
from monai_anomaly.benchmark.matrix import Matrix
from monai_anomaly.benchmark.runner import command, plan, run_matrix
from monai_anomaly.engines import run_steps
from monai_anomaly.benchmark.table import collect
from monai_anomaly.data import make_phantom

QUICK = {"max_epochs": 1, "batch_size": 8, "spatial_size": [16, 16], "hidden_channels": 4, "latent_channels": 2}


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    """One job on a generated data set that comes from an index file."""
    datalist = json.loads(Path(make_phantom(tmp_path / "data", size=32)).read_text())
    splits = {"training": "train_normal", "validation": "val", "testing": "test"}
    with open(tmp_path / "data" / "index.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "mask", "label", "patient", "split"])
        for section, split in splits.items():
            rows = datalist[section]
            writer.writerows([r["image"], r.get("label", ""), r.get("target", 0), r["patient"], split] for r in rows)
    datasets = {"phantom": {"index": "index.csv", "seeds": [0], "overrides": QUICK}}
    rows = [{"label": "AE", "cells": {"plain": ["plain", "rec"]}}]
    return Matrix(**CONTENT | {"datasets": datasets, "trainings": {"plain": {"bundle": "ae"}}, "rows": rows})


def test_a_job_runs_once_and_again_only_where_something_changed(matrix: Matrix, tmp_path: Path) -> None:
    (job,) = plan(matrix, str(tmp_path / "data"), tmp_path / "out")
    run_steps(job)
    folder = Path(job["folder"])
    assert (folder / "models" / "model.pt").is_file() and (folder / "rec" / "metrics.json").is_file()
    cells = collect(matrix, tmp_path / "out")["phantom"]["cells"]["AE"]["plain"]
    assert 0 <= cells["image_auroc"]["value"] <= 1 and cells["pixel_ap"]["low"] is not None

    (folder / "rec" / "metrics.json").unlink()
    status = (folder / "job.json").read_text()
    run_steps(job)
    assert not (folder / "rec" / "metrics.json").exists(), "a finished step must not run again"
    assert (folder / "job.json").read_text() == status

    job["steps"][1]["overrides"]["val_batch_size"] = 4
    run_steps(job)
    assert (folder / "rec" / "metrics.json").is_file(), "a step whose settings changed must run again"


def test_a_failed_job_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    def job(name: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
        return {"folder": str(tmp_path / name), "steps": steps}

    broken = {"configs": ["missing.json"], "overrides": {"output_dir": str(tmp_path / "a"), "datalist": "missing"}}
    jobs = [job("a", [broken]), job("b", [])]
    assert run_matrix(jobs, parallel=2) == [str(tmp_path / "a")]
    assert "missing.json" in (tmp_path / "a" / "log.txt").read_text()
    with pytest.raises(ValueError, match="parallel must be positive, got 0"):
        run_matrix(jobs, parallel=0)


def test_the_printed_command_says_all_settings() -> None:
    text = command({"configs": ["a.json", "b.json"], "overrides": {"score": "ens", "spatial_size": [64, 64]}})
    expected = "python -m monai.bundle run --config_file \"['a.json','b.json']\" --score ens --spatial_size '[64, 64]'"
    assert text == expected


@pytest.mark.parametrize("command", [["run", "none.json"], ["table", "none.json"]])
def test_wrong_use_is_one_line_and_a_status(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *command, "--output", str(tmp_path)])
    assert main() == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "none.json" in printed.err and "Traceback" not in printed.err
