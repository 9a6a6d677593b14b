# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.benchmark.runner import run_step
from monai_anomaly.engines.step_runs import JOB_FILE, run_steps

# a "bundle" of one line: it writes its number and notes that it ran
CONFIG = {
    "imports": ["$import pathlib"],
    "output_dir": "",
    "datalist": "",
    "number": 0,
    "fail": False,
    "folder": "$pathlib.Path(@output_dir)",
    "initialize": [],
    "run": [
        "$@folder.mkdir(parents=True, exist_ok=True)",
        "$(@folder / 'log').open('a').write(str(@number))",
        "$1 // 0 if @fail else 0",
        "$(@folder / 'result').write_text(str(@number))",
    ],
}


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "datalist.json").write_text("{}")
    (tmp_path / "weights").write_text("first")
    return {"folder": str(tmp_path), "steps": [step(tmp_path, "one"), step(tmp_path, "two")]}


def step(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    own = {"output_dir": str(folder / name), "datalist": str(folder / "datalist.json")}
    return {
        "configs": [str(folder / "config.json")],
        "overrides": own | settings,
        "origin": name,
        "results": [str(folder / name / "result")],
    }


def runs(folder: Path) -> tuple[str, ...]:
    """What each step has noted."""
    logs = [folder / name / "log" for name in ("one", "two")]
    return tuple(log.read_text() if log.exists() else "" for log in logs)


def test_steps_run_once(job: dict[str, Any], tmp_path: Path) -> None:
    run_steps(job, run_step)
    status = json.loads((tmp_path / JOB_FILE).read_text())
    assert [status[str(tmp_path / name)]["origin"] for name in ("one", "two")] == ["one", "two"]
    before = (tmp_path / JOB_FILE).read_bytes()
    run_steps(job, run_step)
    assert runs(tmp_path) == ("0", "0") and (tmp_path / JOB_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("setting of the first", ("01", "00")),  # what follows a changed step has changed too
        ("setting of the second", ("0", "01")),
        ("configuration", ("00", "00")),
        ("datalist", ("00", "00")),
        ("result of the second", ("0", "00")),
        ("file that the second uses", ("0", "00")),
    ],
)
def test_what_has_changed_is_done_again(
    change: str, expected: tuple[str, ...], job: dict[str, Any], tmp_path: Path
) -> None:
    job["steps"][1]["uses"] = [str(tmp_path / "weights")]
    run_steps(job, run_step)
    if change.startswith("setting"):
        job["steps"][change.endswith("second")]["overrides"]["number"] = 1
    elif change == "configuration":
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"more": 1}))
    elif change == "datalist":
        (tmp_path / "datalist.json").write_text('{"training": []}')
    elif change == "result of the second":
        (tmp_path / "two" / "result").unlink()
    else:
        (tmp_path / "weights").write_text("second")
    run_steps(job, run_step)
    assert runs(tmp_path) == expected
    run_steps(job, run_step)
    assert runs(tmp_path) == expected


def test_a_step_that_failed_is_not_finished_and_stops_those_after_it(job: dict[str, Any], tmp_path: Path) -> None:
    job["steps"][0]["overrides"]["fail"] = True
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "result").write_text("of another time")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run_steps(job, run_step)
    assert runs(tmp_path) == ("00", "") and not (tmp_path / JOB_FILE).exists()
    job["steps"][0]["overrides"]["fail"] = False
    run_steps(job, run_step)
    assert runs(tmp_path) == ("000", "0")


def test_each_step_says_when_it_begins_and_whether_it_is_finished(
    job: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for expected in ("begins", "finished before"):
            caplog.clear()
            run_steps(job, run_step)
            said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("step ")]
            assert [line.partition(",")[0] for line in said] == [
                f"step {number} of {len(job['steps'])}" for number in range(1, len(job["steps"]) + 1)
            ]
            assert all(line.endswith(f": {expected}") for line in said)


def test_a_missing_file_that_is_used_is_named(job: dict[str, Any], tmp_path: Path) -> None:
    job["steps"][0]["uses"] = [str(tmp_path / "gone.pt")]
    with pytest.raises(ValueError, match=r"gone\.pt is not there"):
        run_steps(job, run_step)
    assert runs(tmp_path) == ("", "")
