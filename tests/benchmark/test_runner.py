# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_matrix import CONTENT, REPOSITORY

from monai_anomaly.benchmark.__main__ import main
from monai_anomaly.benchmark.matrix import Matrix
from monai_anomaly.benchmark.plan import plan
from monai_anomaly.benchmark.results import collect
from monai_anomaly.benchmark.runner import command, run_job, run_matrix, run_step
from monai_anomaly.data import make_phantom
from monai_anomaly.engines.step_runs import run_steps
from monai_anomaly.utils import file_mark

QUICK = {"max_epochs": 1, "batch_size": 8, "spatial_size": [16, 16], "hidden_channels": 4, "latent_channels": 2}


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    """One job on a generated data set that comes from an index file."""
    datalist = json.loads(Path(make_phantom(tmp_path / "data", size=32)).read_text())
    splits = {"training": "train_normal", "unlabeled": "unlabeled", "validation": "val", "testing": "test"}
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
    run_steps(job, run_step)
    folder = Path(job["folder"])
    assert (folder / "models" / "model.pt").is_file() and (folder / "rec" / "metrics.json").is_file()
    cells = collect(matrix, tmp_path / "out")["phantom"]["cells"]["AE"]["plain"]
    assert 0 <= cells["image_auroc"]["value"] <= 1 and cells["pixel_ap"]["low"] is not None

    weights, metrics = folder / "models" / "model.pt", folder / "rec" / "metrics.json"

    def done_again(*files: Path) -> list[bool]:
        before = [path.stat().st_mtime_ns if path.is_file() else None for path in files]
        run_steps(job, run_step)
        return [path.stat().st_mtime_ns != time for path, time in zip(files, before, strict=True)]

    status = (folder / "job.json").read_text()
    assert done_again(weights, metrics) == [False, False], "a finished step must not run again"
    assert (folder / "job.json").read_text() == status
    for file in (metrics, folder / "rec" / "scores.csv"):
        file.unlink()
        assert done_again(weights, file) == [False, True], "a step whose result is gone must run again"
    content = weights.read_bytes()
    weights.unlink()
    assert done_again(weights, metrics) == [True, False] and weights.read_bytes() == content
    job["steps"][1]["overrides"]["val_batch_size"] = 4
    assert done_again(weights, metrics) == [False, True], "a step whose settings changed must run again"


def test_a_failed_job_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    def job(name: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
        return {"folder": str(tmp_path / name), "steps": steps}

    broken = {"configs": ["missing.json"], "overrides": {"output_dir": str(tmp_path / "a"), "datalist": "missing"}}
    jobs = [job("a", [broken]), job("b", [])]
    assert run_matrix(jobs, parallel=2) == [str(tmp_path / "a")]
    assert "missing.json" in (tmp_path / "a" / "log.txt").read_text()
    with pytest.raises(ValueError, match="parallel must be positive, got 0"):
        run_matrix(jobs, parallel=0)


def test_jobs_wait_for_what_they_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    begun = threading.Event()

    def run(job: dict[str, Any], threads: int) -> int:
        events.append("begin " + job["folder"])
        if job["folder"] == "d":
            begun.set()
        if job["folder"] == "a":
            begun.wait()  # what does not depend on each other runs together
        events.append("end " + job["folder"])
        return int(job["folder"] == "a")

    def job(name: str, *after: str) -> dict[str, Any]:
        return {"folder": name, "after": list(after), "steps": []}

    monkeypatch.setattr("monai_anomaly.benchmark.runner._run_apart", run)
    # listed in the wrong order, and one uses a job of an earlier call
    jobs = [job("c", "b"), job("b", "a"), job("a"), job("e", "d"), job("d", "earlier"), job("f")]
    assert run_matrix(jobs, parallel=2) == ["c", "b", "a"]
    assert sorted(event for event in events if event.startswith("begin")) == [f"begin {name}" for name in "adef"]
    assert events.index("begin e") > events.index("end d")
    assert "not run: b, since it uses what is missing: a" in caplog.text
    with pytest.raises(ValueError, match="wait for each other"):
        run_matrix([job("x", "y"), job("y", "x")])


CHAIN: dict[str, Any] = {
    "trainings": {
        "mae": {"bundle": "mae_pretrain", "evaluations": ["image"]},
        "stage1": {
            "bundle": "amae_stage1",
            "evaluations": ["image"],
            "overrides": {"warmup_epochs": 0},
            "uses": {"start_weights": ["mae", "models/model.pt"]},
        },
        "ddad": {
            "bundle": "ddad",
            # one after the other in this process, which is faster here than all_folds
            "configs": [
                *({"configs": ["train"], "overrides": {"fold": fold}} for fold in range(3)),
                {"configs": ["train", "refine"], "overrides": {"max_epochs": 2}},
            ],
            "overrides": {"num_folds": 3, "num_normal": 2, "transductive": True},
            "evaluations": ["refined_dual"],
        },
    },
    "evaluations": {"image": {}, "refined_dual": {"score": "refined_dual"}},
    "rows": [
        {"label": "MAE", "cells": {"score": ["mae", "image"]}},
        {"label": "stage 1", "cells": {"score": ["stage1", "image"]}},
        {"label": "DDAD", "cells": {"score": ["ddad", "refined_dual"]}},
    ],
}
TINY: dict[str, Any] = {
    "max_epochs": 1,
    "batch_size": 4,
    "spatial_size": [16, 16],
    "hidden_size": 12,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_hidden_size": 16,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
    "hidden_channels": 4,
    "refiner_channels": 4,
    "foreground": "whole_image",
    "variants": 1,
}


@pytest.fixture
def unlike(matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> Matrix:
    """A training that uses another's file, and one of folds and two steps."""

    def copy(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:  # faster than to build them
        for name in command[command.index("build") + 1 : command.index("--output-dir")]:
            shutil.copytree(REPOSITORY / "bundles" / name, Path(command[-1]) / name, dirs_exist_ok=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("monai_anomaly.benchmark.plan.subprocess.run", copy)
    data = {"index": "index.csv", "seeds": [0], "overrides": TINY}
    return Matrix(**CONTENT | CHAIN | {"datasets": {"phantom": data}})


def test_a_plan_knows_the_bundles(unlike: Matrix, tmp_path: Path) -> None:
    mae, stage1, ddad = plan(unlike, str(tmp_path / "data"), tmp_path / "out")
    weights = str(Path(mae["folder"]) / "models" / "model.pt")
    assert stage1["after"] == [mae["folder"]] and stage1["steps"][0]["uses"] == [weights]
    assert stage1["steps"][0]["overrides"]["start_weights"] == weights
    assert mae["steps"][1]["overrides"]["checkpoint"] == weights
    assert mae["steps"][0]["results"] == [weights]
    measured = [str(Path(mae["folder"]) / "image" / name) for name in ("metrics.json", "scores.csv")]
    assert mae["steps"][1]["results"] == measured
    folds, *_, refine, evaluation = ddad["steps"]
    assert all("ckpt_dir" not in step["overrides"] for step in ddad["steps"])
    assert evaluation["overrides"]["checkpoint"] == folds["overrides"]["output_dir"] == ddad["folder"]
    assert [Path(name).stem for name in refine["configs"]] == ["train", "refine"]
    assert [step["overrides"]["max_epochs"] for step in ddad["steps"]] == [1, 1, 1, 2, 1]
    parts = ("fold_0", "fold_1", "fold_2", "refiner")
    left = [str(Path(ddad["folder"]) / part / "models" / "model.pt") for part in parts]
    assert [step["results"] for step in ddad["steps"][:4]] == [[file] for file in left]
    # settings go to the steps that know them, and audits that demand different things do not share a folder
    configs = [["train", "all_folds"], ["train", "refine"]]
    several = {"ddad": unlike.trainings["ddad"] | {"configs": configs, "overrides": {"jobs": 1, "folds": [0, 2]}}}
    several["labels"] = {"bundle": "amae_stage1", "configs": ["train", "pseudo_labels"], "evaluations": []}
    several["amae"] = {"bundle": "amae", "uses": {"pseudo_labels": ["labels", "labels.json"]}, "evaluations": []}
    changed = replace(unlike, trainings={**unlike.trainings, **several})
    _, _, both, labels, _ = plan(changed, str(tmp_path / "data"), tmp_path / "out")
    assert ["jobs" in step["overrides"] for step in both["steps"]] == [True, False, False]
    assert [step["results"] for step in both["steps"][:2]] == [[left[0], left[2]], left[3:]]
    assert labels["steps"][0]["results"] == [str(Path(labels["folder"]) / "labels.json")], "what another job uses"
    assert "variants" in stage1["steps"][0]["overrides"] and "variants" not in mae["steps"][0]["overrides"]
    names = [Path(job["steps"][0]["overrides"]["audit_dir"]).name for job in (mae, stage1, ddad)]
    assert names == ["audit", "audit", "audit_transductive"]


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        (
            "trainings",
            {"mae": {"bundle": "mae_pretrain", "evaluations": ["image"], "overrides": {"rounds": 1}}},
            "'mae' .* no setting .'rounds'",
        ),
        (
            "trainings",
            {"mae": {"bundle": "mae_pretrain", "evaluations": ["image"], "configs": ["cnn"]}},
            "mae_pretrain has no configuration 'cnn'",
        ),
        ("evaluations", {"image": {"refined": 1}, "refined_dual": {}}, "evaluation 'image' has no setting .'refined'"),
        ("datasets", {"phantom": {"seeds": [0], "overrides": {"nothing": 1}}}, "'phantom' has no setting .'nothing'"),
    ],
)
def test_a_setting_that_nothing_knows_is_refused(
    unlike: Matrix, tmp_path: Path, part: str, content: dict[str, Any], message: str
) -> None:
    old = getattr(unlike, part)
    changed = replace(unlike, **{part: {**old, **content} if part != "datasets" else content})
    with pytest.raises(ValueError, match=message):
        plan(changed, str(tmp_path / "data"), tmp_path / "out")


def test_unlike_methods_run_in_one_matrix(unlike: Matrix, tmp_path: Path) -> None:
    mae, stage1, ddad = jobs = plan(unlike, str(tmp_path / "data"), tmp_path / "out")
    for job in jobs:
        run_job(job)
    result = collect(unlike, tmp_path / "out")["phantom"]
    assert (result["finished"], set(result["cells"])) == (3, {"MAE", "stage 1", "DDAD"})
    assert result["transductive"] == {"DDAD": ["score"]}
    assert len(list(Path(ddad["folder"]).glob("fold_*/models/model.pt"))) == 3

    def began_with() -> str:
        return str(json.loads((Path(stage1["folder"]) / "models" / "training.json").read_text())["start_weights"])

    weights = Path(mae["folder"]) / "models" / "model.pt"
    written = Path(stage1["folder"]) / "image" / "metrics.json"
    before = written.stat().st_mtime_ns
    run_job(stage1)
    assert written.stat().st_mtime_ns == before and began_with() == file_mark(weights), "nothing changed: nothing to do"
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 1.5 if value.is_floating_point() else value for key, value in state.items()}, weights)
    run_job(stage1)
    assert written.stat().st_mtime_ns != before and began_with() == file_mark(weights), (
        "a changed source is learned from"
    )
    weights.unlink()
    checkpoint = Path(stage1["folder"]) / "models" / "checkpoint.pt"
    trained = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"model\.pt is not there"):
        run_job(stage1)
    assert checkpoint.read_bytes() == trained, "what waits for another file loses nothing"
    run_job(mae)
    assert weights.is_file(), "the remedy that the error names"


def test_the_printed_command_says_all_settings() -> None:
    overrides = {"score": "ens", "spatial_size": [64, 64], "limit": None}
    text = command({"configs": ["a.json", "b.json"], "overrides": overrides})
    expected = "python -m monai.bundle run --config_file \"['a.json','b.json']\" --score ens"
    expected += " --spatial_size '[64, 64]' --limit '$None'"
    assert text == expected


@pytest.mark.parametrize("command", [["run", "none.json"], ["table", "none.json"]])
def test_wrong_use_is_one_line_and_a_status(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *command, "--output", str(tmp_path)])
    assert main() == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "none.json" in printed.err and "Traceback" not in printed.err
