# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from processes import is_running, wait_for_end, wait_until

from monai_anomaly.engines import FoldRuns, fold_runs

# a training that writes what it was given, sleeps, and fails where it is told to
NOTE = {key: f"@{key}" for key in ("fold", "text", "nested", "number", "device")} | {"_target_": "builtins.dict"}
CONFIG: dict[str, Any] = {
    "imports": ["$import os", "$import time", "$import pathlib", "$import json", "$import monai_anomaly"],
    "output_dir": "runs",
    "num_folds": 10,
    "fold": None,
    "ckpt_dir": "$os.path.join(str(@output_dir), 'fold_' + str(@fold))",
    "text": "plain",
    "number": 1,
    "nested": {"a": [1, {"b": 2}]},
    "device": "cpu",
    "seconds": 0,
    "broken": [],
    "folds": None,
    "jobs": None,
    "fold_runs": {"_target_": "monai_anomaly.engines.FoldRuns"}
    | {key: f"@{key}" for key in ("output_dir", "num_folds", "folds", "jobs")},
    "note": NOTE,
    "environment": "$os.environ",
    "initialize": {"_target_": "monai_anomaly.bundle.options.check_options"},
    "run": "$@fold_runs.run()",
    "run_fold": [
        "$monai_anomaly.engines.end_with_parent()",
        "$pathlib.Path(@ckpt_dir, 'pid').write_text(str(os.getpid()))",
        "$time.sleep(@seconds)",
        "$[][0] if @fold in @broken else None",
        "$pathlib.Path(@ckpt_dir, 'note').write_text(json.dumps(dict(@note, device=repr(@device))))",
        "$pathlib.Path(@ckpt_dir, 'threads').write_text(os.environ['OMP_NUM_THREADS'])",
    ],
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "configs" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return str(path)


def run(config: str, **overrides: Any) -> None:
    workflow = ConfigWorkflow(config_file=config, meta_file={}, logging_file=False, **overrides)  # type: ignore[arg-type]
    workflow.initialize()
    workflow.run()


def test_a_failing_fold_is_named_the_others_finish_and_have_all_options(config: str, tmp_path: Path) -> None:
    options = {
        "output_dir": tmp_path / "runs",
        "folds": [0, 3, 7],
        "jobs": 2,
        "broken": [3],
        "text": "$'sp' + 'am'",
        "nested#a#1#b": PurePosixPath("x y/z"),
        "number": np.float32(0.5),
        "device": torch.device("cpu"),
    }
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        run(config, **options)
    message = str(caught.value.__cause__)
    log = tmp_path / "runs/fold_3/log.txt"
    assert message.startswith("1 of 3 folds failed; mend the cause and start the same command again")
    assert f"fold 3, exit code 1: {log}: error: list index out of range" in message and message.count("log.txt") == 1
    assert "IndexError" in log.read_text() and not (tmp_path / "runs/fold_3/note").exists()
    for fold in (0, 7):
        note = json.loads((tmp_path / f"runs/fold_{fold}/note").read_text())
        assert note == {
            "fold": fold,
            "text": "spam",
            "nested": {"a": [1, {"b": "x y/z"}]},
            "number": 0.5,
            "device": "device(type='cpu')",
        }
    assert not (tmp_path / "runs/fold_1").exists()


def test_a_begun_fold_that_fails_keeps_the_others_from_starting(config: str, tmp_path: Path) -> None:
    begun = tmp_path / "runs/fold_5/models/checkpoint.pt"
    begun.parent.mkdir(parents=True)
    begun.touch()
    options = {"output_dir": tmp_path / "runs", "folds": [0, 5, 7], "jobs": 1}
    with pytest.raises(RuntimeError) as caught:
        run(config, **options, broken=[5])
    assert str(caught.value.__cause__).startswith("1 of 3 folds failed")
    assert {path.name for path in (tmp_path / "runs").glob("fold_*")} == {"fold_5"}
    run(config, **options)
    assert {path.parent.name for path in (tmp_path / "runs").glob("fold_*/note")} == {"fold_0", "fold_5", "fold_7"}


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
    ids=["term", "ctrl-c", "kill"],
)
def test_the_folds_end_with_the_process_that_started_them(end: int, config: str, tmp_path: Path) -> None:
    options = {"output_dir": str(tmp_path / "runs"), "folds": "[1,2]", "jobs": "2", "seconds": str(24 * 3600)}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config]
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    # a shell lets what it starts in the background ignore Ctrl-C, and all that follows inherits it
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=heed) as parent:
        try:
            pids = [tmp_path / f"runs/fold_{fold}/pid" for fold in (1, 2)]
            wait_until(lambda: all(path.is_file() and path.read_text() for path in pids), parent)
            children = [int(path.read_text()) for path in pids]
            assert all(is_running(pid) for pid in children)
            parent.send_signal(end)
            parent.wait()
        finally:
            parent.kill()
    wait_for_end(children)
    assert (
        parent.returncode == {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT, signal.SIGKILL: -signal.SIGKILL}[end]
    )


def test_no_more_than_so_many_run_at_a_time(tmp_path: Path) -> None:
    script = """
import pathlib, sys, time
here, fold = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(here / f"now{fold}").touch()
(here / f"came{fold}").touch()
while len(list(here.glob("came*"))) < 3:  # the first ones wait for each other: they must run together
    time.sleep(0.01)
(here / f"seen{fold}").write_text(str(len(list(here.glob("now*")))))
(here / f"now{fold}").unlink()
sys.exit(fold % 2)
"""
    runs = FoldRuns(tmp_path, 7, jobs=3)
    commands = {fold: [sys.executable, "-S", "-c", script, str(tmp_path), str(fold)] for fold in runs.folds}
    assert runs.run_commands(commands) == {fold: fold % 2 for fold in range(7)}
    seen = [int(path.read_text()) for path in tmp_path.glob("seen*")]
    assert len(seen) == 7 and max(seen) <= 3
    assert all(runs.log(fold).read_text().startswith("\n$ ") for fold in range(7))


@pytest.mark.parametrize(
    ("cores", "settings", "expected"),
    [
        (16, {}, [{"OMP_NUM_THREADS": "1"}] * 10),
        (64, {}, [{"OMP_NUM_THREADS": "6"}] * 10),
        (4, {}, [{"OMP_NUM_THREADS": "1"}] * 4),
        (4, {"folds": [2]}, [{"OMP_NUM_THREADS": "4"}]),
        (4, {"jobs": 2}, [{"OMP_NUM_THREADS": "2"}] * 2),
        (2, {"jobs": 5}, [{"OMP_NUM_THREADS": "1"}] * 5),
        (8, {"device": "cuda"}, [{"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": name} for name in ("0", "1")]),
        (
            8,
            {"device": torch.device("cuda"), "jobs": 3},
            [{"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": name} for name in ("0", "1", "0")],
        ),
        (8, {"device": "cuda:1"}, [{"OMP_NUM_THREADS": "8"}]),
        (8, {"device": "cuda:1", "jobs": 2}, [{"OMP_NUM_THREADS": "4"}] * 2),
    ],
)
def test_the_machine_is_shared_out(
    cores: int, settings: dict[str, Any], expected: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fold_runs, "_number_of_cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert FoldRuns("runs", 10, **settings).lanes() == expected


def test_what_the_user_has_set_in_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_runs, "_number_of_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-aa")
    lanes = FoldRuns("runs", 10, device="cuda").lanes()
    assert [lane["CUDA_VISIBLE_DEVICES"] for lane in lanes] == ["5", "GPU-aa"]
    assert {lane["OMP_NUM_THREADS"] for lane in lanes} == {"1"}


def test_one_number_is_a_list_of_one() -> None:
    assert FoldRuns("runs", 4, folds=3).folds == [3]
    assert FoldRuns("runs", 4).folds == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": [0, 4]}, r"numbers from 0 to 3 such as \[0, 3\], got \[0, 4\]"),
        ({"folds": [1, 1]}, r"different numbers .*got \[1, 1\]"),
        ({"folds": []}, r"got \[\]"),
        ({"folds": "all"}, "got 'all'"),
        ({"jobs": 0}, "jobs must be null .*or a positive number, got 0"),
        ({"jobs": 1.5}, "got 1.5"),
    ],
)
def test_wrong_arguments_name_the_allowed_ones(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FoldRuns("runs", 4, **settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fold": 3}, "fold must be left to all_folds.json, which trains all of them, got 3: give --folds"),
        ({"ckpt_dir": "models"}, "ckpt_dir must differ from fold to fold, got 'models' for all: leave it out"),
        ({"text": object()}, "options must be text, numbers, lists or dictionaries"),
    ],
)
def test_what_all_folds_cannot_share_is_refused_before_one_starts(
    overrides: dict[str, Any], message: str, config: str, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(config, output_dir=str(tmp_path / "runs"), **overrides)
    assert message in str(caught.value.__cause__)
    assert not (tmp_path / "runs").exists()


def test_it_is_run_by_a_bundle_and_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"python -m monai\.bundle run"):
        FoldRuns("runs", 4).run()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave out torchrun"):
        FoldRuns("runs", 4).run()
