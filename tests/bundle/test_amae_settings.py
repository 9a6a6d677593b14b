# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of AMAE as its configurations give them: lengths, rates, and what the steps before are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow
from test_amae import BUNDLES, OWN, TINY

from monai_anomaly.data import make_phantom

PIPELINE = ["train", "evaluate", "all_folds", "pipeline"]


@pytest.mark.parametrize(
    ("name", "options", "epochs", "warmup"),
    [
        ("amae", {"max_iterations": 7}, 4, 4),  # of two batches: 8 steps, the first half of which the rate rises
        ("amae", {"max_iterations": 8, "warmup_epochs": 1}, 4, 2),
        ("amae", {"max_epochs": 3}, 3, 3),
        ("mae_pretrain", {"max_epochs": 60}, 60, 2 * 20),
        ("amae_stage1", {"max_epochs": 1}, 1, 1),
    ],
)
def test_a_training_has_as_many_steps_as_asked_and_its_rate_falls_in_the_end(
    name: str, options: dict[str, Any], epochs: int, warmup: int, tmp_path: Path
) -> None:
    make_phantom(tmp_path, size=32, num_training=10, num_unlabeled=2, num_validation=2, num_testing=2)
    own = OWN[name] | {"fold": 0} if name == "amae" else OWN[name]
    options = {**TINY, **own, "batch_size": 4, "dataset_dir": str(tmp_path), **options}
    workflow = ConfigWorkflow(str(BUNDLES / name / "configs/train.json"), workflow_type="train", **options)
    workflow.initialize()
    schedule = workflow.parser.get_parsed_content("schedule")
    assert workflow.parser.get_parsed_content("epochs") == epochs
    assert (schedule.warmup_steps, schedule.t_total) == (warmup, 2 * epochs)


@pytest.mark.parametrize(
    ("configs", "given", "expected"),
    [
        (PIPELINE, {}, {"mae": (200, 0.75, 0.003, 16), "training": (300, 16, 0.003)}),
        (
            PIPELINE,
            {"epochs_of_pretraining": 3, "epochs_of_stage1": 4, "variants": 0},
            {"mae": (3, 0.75, 0.003, 16), "training": (4, 0, 0.003)},
        ),
        ([*PIPELINE, "paper"], {}, {"mae": (800, 0.9, 0.00015, 256), "training": (150, 0, 0.00025)}),
        (["train", "paper", *PIPELINE[1:]], {}, {"mae": (800, 0.9, 0.00015, 256), "training": (150, 0, 0.00025)}),
    ],
    ids=["plain", "given", "paper last", "paper first"],
)
def test_the_steps_before_have_their_settings_of_the_paper_too(
    configs: list[str],
    given: dict[str, Any],
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr("monai_anomaly.engines.bundle_steps.run_steps", lambda job, _: jobs.append(job))
    monkeypatch.setattr("monai_anomaly.engines.bundle_steps.subprocess.run", lambda *_, **__: None)
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / "amae/configs" / f"{config}.json") for config in configs])
    parser.update({"output_dir": str(tmp_path), **given})
    names = {"mae": ("max_epochs", "mask_ratio", "learning_rate", "batch_size")}
    names["training"] = ("max_epochs", "variants", "learning_rate")
    for step in ("pretraining", "stage1"):
        parser.get_parsed_content(f"before#{step}").run()
    found = {}
    for step in (step for job in jobs for step in job["steps"]):
        own = ConfigParser()
        own.read_config([BUNDLES.joinpath(*Path(config).parts[-3:]) for config in step["configs"]])
        own.update(step["overrides"])
        name = Path(step["overrides"]["output_dir"]).name
        found[name] = tuple(own[setting] for setting in names.get(name, ()))
        assert own["hidden_size"] == (384 if "paper" in configs else 96)
    assert found == {**expected, "evaluation": (), "pseudo_labels": ()}


@pytest.mark.parametrize(
    ("given", "before"),
    [
        ({}, ["pretraining", "stage1"]),
        ({"pseudo_labels": None}, ["pretraining"]),
        ({"pseudo_labels": "labels.json", "start_weights": "start.pt"}, []),
    ],
)
def test_steps_before_are_run_for_what_is_not_given(
    given: dict[str, Any], before: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr("monai_anomaly.engines.BundleSteps.run", lambda steps: ran.append(steps.output_dir.name))
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / "amae/configs" / f"{config}.json") for config in PIPELINE])
    parser.update({"output_dir": str(tmp_path), **given})
    for number, expression in enumerate(parser["run"]):
        if "before" in expression:
            parser.get_parsed_content(f"run#{number}")
    assert ran == before
