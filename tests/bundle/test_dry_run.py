# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``--dry_run True`` tells, and that epochs follow one scheme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_anomaly.bundle.build import bundle_files, recipe_names
from monai_anomaly.bundle.dry_run import PlannedStep, plan_run
from monai_anomaly.data import make_phantom

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
PIPELINE = ["train", "evaluate", "all_folds", "pipeline"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name a generated data set."""
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, size=16, num_training=12, num_unlabeled=6, num_validation=4, num_testing=5)
    return {"dataset_dir": str(folder), "spatial_size": [16, 16], "device": torch.device("cpu")}


def begin(name: str, configs: list[str], **options: Any) -> ConfigWorkflow:
    files = [str(BUNDLES / name / f"configs/{config}.json") for config in configs]
    workflow = ConfigWorkflow(files, workflow_type="train", bundle_root=str(BUNDLES / name), **options)
    workflow.initialize()
    return workflow


def test_a_dry_run_prints_its_steps_and_leaves_nothing_behind(
    data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    workflow = begin("ddad", PIPELINE, dry_run=True, max_epochs=10, batch_size=4, output_dir=str(out), **data)
    assert workflow.run() == [] and not out.exists()
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.startswith(("audit", "fold", "refinement", "evaluation"))]
    normal, both = ["12", "10", "30", "120", "begins"], ["18", "10", "40", "180", "begins"]
    assert table == [
        ["audit"],
        *(["fold", str(k), *(normal if k < 3 else both)] for k in range(6)),
        ["refinement/training", "12", "4", "4", "48", "begins", str(out), "(to", "come)"],
        ["evaluation", "5", "5", str(out), "(to", "come)"],
    ]
    assert lines[-1] == "dry run, nothing was trained or written: 953 images are still to be seen"


def rows(name: str, configs: list[str], **options: Any) -> dict[str, PlannedStep]:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / name / f"configs/{config}.json") for config in configs])
    parser.update(options)
    return {step.name: step for step in plan_run(parser)}


def test_steps_that_depend_on_steps_before_say_so(data: dict[str, Any], tmp_path: Path) -> None:
    options = {**data, "output_dir": str(tmp_path), "max_epochs": 2, "batch_size": 6}
    found = rows("amae", PIPELINE, **options)
    assert list(found) == [
        "audit",
        "pretraining/mae",
        "stage1/training",
        "stage1/evaluation",
        "stage1/pseudo_labels",
        "fold 0",
        "fold 1",
        "evaluation",
    ]
    assert found["pretraining/mae"].epochs == 3 and found["stage1/training"].epochs == 4
    weights = tmp_path / "pretraining/mae/models/model.pt"
    assert found["stage1/training"].starts_from == f"{weights} (to come)"
    assert found["stage1/pseudo_labels"].images == 6
    labels = tmp_path / "stage1/pseudo_labels/pseudo_labels.json"
    assert found["fold 1"] == ("fold 1", "?", 2, "?", "?", "begins", f"{weights} (to come), {labels} (to come)")
    weights = tmp_path / "own.pt"
    weights.touch()
    found = rows("amae", PIPELINE, **options, start_weights=str(weights), pseudo_labels=None, held_out=0.01)
    assert [found[name].state for name in ("pretraining", "stage1")] == ["left out", "left out"]
    assert found["fold 1"].starts_from == str(weights) and found["fold 1"].iterations != "?"


def test_what_is_there_already_is_not_counted(data: dict[str, Any], tmp_path: Path) -> None:
    options = {**data, "output_dir": str(tmp_path), "max_epochs": 4, "batch_size": 4, "hidden_channels": 4}
    (tmp_path / "models").mkdir()
    state = {"max_epochs": 4, "epoch_length": 3, "iteration": 6}
    torch.save({"trainer": state}, tmp_path / "models/checkpoint.pt")
    assert rows("ae", ["train"], **options)["training"][1:] == (12, 4, 12, 24, "goes on after epoch 2", "")
    torch.save({"trainer": state | {"iteration": 12}}, tmp_path / "models/checkpoint.pt")
    (tmp_path / "models/model.pt").touch()
    assert rows("ae", ["train"], **options)["training"][1:] == (12, 4, 12, 0, "finished", "")


@pytest.mark.parametrize("name", recipe_names())
def test_every_bundle_tells_what_it_would_train(name: str, data: dict[str, Any], tmp_path: Path) -> None:
    found = rows(name, ["train"], **data, output_dir=str(tmp_path), pseudo_labels=None)
    usual = bundle_files(name)["configs/train.json"]
    members = usual["trained"]["defaults"]["num_members"] if name.startswith("d2ue") else 1
    assert found["training"].epochs == usual["max_epochs"] * members and found["training"].state == "begins"
    assert isinstance(found["training"].to_see, int) and found["training"].to_see > 0


def test_epochs_of_other_steps_follow_the_budget(tmp_path: Path) -> None:
    """The numbers in the pipelines are those of the bundles that take the steps."""
    amae, ddad = (bundle_files(name) for name in ("amae", "ddad"))
    usual = {name: bundle_files(name) for name in ("mae_pretrain", "amae_stage1")}
    expected = {
        ("amae", "epochs_of_pretraining"): ("mae_pretrain", amae),
        ("amae", "epochs_of_stage1"): ("amae_stage1", amae),
    }
    for (_, setting), (other, files) in expected.items():
        for configs in (["train"], ["train", "paper"]):
            own = files["configs/train.json"]["max_epochs"]
            epochs = [usual[other][f"configs/{config}.json"].get("max_epochs") for config in configs]
            wanted = [epoch for epoch in epochs if epoch][-1]
            for budget in (own, 2 * own, 1):
                parser = ConfigParser({"max_epochs": budget, "step_configs": configs})
                parser[setting] = files["configs/pipeline.json"][setting]
                assert parser.get_parsed_content(setting) == max(1, round(wanted * budget / own))
    own, refined = (ddad[f"configs/{config}.json"]["max_epochs"] for config in ("train", "refine"))
    for budget in (own, 2, 3 * own):
        parser = ConfigParser({"max_epochs": budget})
        parser["epochs"] = ddad["configs/pipeline.json"]["epochs_of_refinement"]
        assert parser.get_parsed_content("epochs") == max(1, round(refined * budget / own))


@pytest.mark.parametrize("name", recipe_names())
def test_no_setting_is_listed_twice(name: str) -> None:
    readme = bundle_files(name)["docs/README.md"]
    table = readme.partition("## Settings")[2].partition("## Expected results")[0]
    listed = [
        setting
        for line in table.splitlines()
        if line.startswith("| `--")
        for setting in line.split("|")[1].replace("`", "").replace(",", " ").split()
    ]
    shared = {"--learning_rate", "--batch_size", "--weight_decay"}  # of another training by another configuration
    assert "--max_epochs" in listed and "--dry_run" in listed
    assert [setting for setting in dict.fromkeys(listed) if listed.count(setting) > 1 and setting not in shared] == []
    epochs = {setting for setting in listed if "epochs" in setting}
    other = {setting for setting in epochs if not setting.startswith("--epochs_of_")}
    assert other <= {"--max_epochs", "--warmup_epochs"}
