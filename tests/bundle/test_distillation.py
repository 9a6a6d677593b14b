# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""An ensemble of diffusion models whose work one network learns to do in one evaluation, as the bundle wires it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from monai_anomaly.data import make_phantom

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "diffusion_restoration" / "configs"
TINY: dict[str, Any] = {
    "bundle_root": str(CONFIGS.parent),
    "channels": [8, 8],
    "attention_levels": [False, False],
    "spatial_size": [16, 16],
    "device": "cpu",
}
SHORT = {"num_steps": 2, "batch_size": 4, "max_epochs": 2, "checkpoint_seconds": 0}
FOLDS = (1, 4)


class Death(BaseException):
    """The run is over, and nothing of it is tidied up."""


def _die(*_: Any) -> None:
    raise Death


def opened(configs: tuple[str, ...], **options: Any) -> ConfigWorkflow:
    """What ``monai.bundle run`` runs."""
    files = [str(CONFIGS / f"{config}.json") for config in configs]
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", **{**TINY, **options})
    workflow.initialize()
    return workflow


def run(configs: tuple[str, ...], death: Any = None, **options: Any) -> ConfigParser:
    """What ``monai.bundle run`` does; ``death`` is the event of the trainer at which the run ends."""
    workflow = opened(configs, **options)
    if death is not None:
        workflow.parser.get_parsed_content("train#trainer").add_event_handler(death, _die)
    workflow.run()
    return workflow.parser


def cause_of(error: BaseException) -> str:
    """The message that an error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name a generated data set, the source of foreign structures as well."""
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, size=16, num_training=10, num_unlabeled=0, num_validation=2, num_testing=4)
    return {"dataset_dir": str(folder), "other_dir": str(folder), "held_out": 0.2}


def write_members(folder: Path, **options: Any) -> Path:
    """Two of the ten members as their trainings leave them, with random weights: some would start at zero."""
    parser = ConfigParser(json.loads((CONFIGS / "train.json").read_text()) | TINY | {"num_folds": 2} | options)
    torch.manual_seed(0)
    for fold, member in zip(FOLDS, parser.get_parsed_content("network_def").network.members, strict=True):
        for parameter in member.parameters():
            nn.init.normal_(parameter, std=0.1)
        models = folder / f"fold_{fold}/models"
        models.mkdir(parents=True)
        torch.save(member.state_dict(), models / "model_best.pt")
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two members."""
    return write_members(tmp_path_factory.mktemp("members"))


@pytest.fixture(scope="module")
def distilled(members: Path, data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the members with a student beside them."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(members, folder)
    run(("train", "distill"), output_dir=str(folder), **SHORT, **data)
    return folder


def states(folder: Path) -> list[dict[str, Any]]:
    """What the student's training has left."""
    models = folder / "distilled/fold_0/models"
    return [torch.load(models / name, weights_only=True) for name in ("model.pt", "checkpoint.pt")]


def test_the_student_is_evaluated_and_infers_in_one_evaluation(
    distilled: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    # ten images, two of them held out, each with two anomalies
    assert len(list((distilled / "distilled/restorations").iterdir())) == 2 * 8
    training = json.loads((distilled / "distilled/fold_0/models/training.json").read_text())
    assert training["members"] == list(FOLDS) and len(training["member_weights"]) == 2 and training["num_steps"] == 2
    common = {**data, "checkpoint": str(distilled / "distilled")}
    parser = run(("train", "evaluate", "distilled"), output_dir=str(tmp_path / "eval"), **common)
    network = parser.get_parsed_content("scored_network")
    assert len(network.sampler.times) == 1 and network.network.asked() == [0]
    weights = states(distilled)[0]
    assert all(torch.equal(value, weights[name]) for name, value in network.network[0].state_dict().items())
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert metrics["method"] == "Image-conditioned diffusion, distilled"
    told = metrics["settings"]
    assert told["num_steps"] == 1 and told["training"]["variants"] == 2
    del common["other_dir"], common["held_out"]
    run(("inference", "distilled"), output_dir=str(tmp_path / "maps"), **common)
    assert (tmp_path / "maps/scores.csv").is_file()


def test_it_starts_from_the_first_member_and_the_rate_ends_at_zero(
    members: Path, distilled: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    options = {**SHORT, **data, "checkpoint": str(members), "output_dir": str(tmp_path), "learning_rate": 0.0}
    run(("train", "distill"), **options)
    start = torch.load(members / f"fold_{FOLDS[0]}/models/model_best.pt", weights_only=True)
    untrained, trained = states(tmp_path)[0], states(distilled)[0]
    assert start.keys() == untrained.keys() == trained.keys()
    assert all(torch.equal(value, untrained[name]) for name, value in start.items())
    assert not all(torch.equal(value, trained[name]) for name, value in start.items())
    (group,) = states(distilled)[1]["optimizer"]["param_groups"]
    assert group["initial_lr"] == 0.0005 and group["lr"] < 1e-12


@pytest.mark.parametrize("death", [Events.EPOCH_STARTED(once=2), Events.ITERATION_COMPLETED(once=3)])
def test_a_broken_off_run_ends_where_an_unbroken_one_does(
    death: Any, members: Path, distilled: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(members, tmp_path / "run")
    options = {"output_dir": str(tmp_path / "run"), **SHORT, **data}
    with pytest.raises(Death):
        run(("train", "distill"), death, **options)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "run/distilled/restorations").iterdir()}
    assert len(kept) == (16 if death == Events.EPOCH_STARTED else 12)
    torch.rand(7)  # whatever another process has drawn
    run(("train", "distill"), **options)
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items()), "a restoration was made again"
    (weights, stored), (expected, expected_stored) = states(tmp_path / "run"), states(distilled)
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)
    momentum = [checkpoint["optimizer"]["state"] for checkpoint in (stored, expected_stored)]
    torch.testing.assert_close(*momentum, rtol=0, atol=0)
    assert stored["also"] == expected_stored["also"] and stored["settings"] == expected_stored["settings"]


def test_another_teacher_is_noticed(distilled: Path, data: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(distilled, folder)
    file = folder / f"fold_{FOLDS[1]}/models/model_best.pt"
    torch.save({name: 2 * value for name, value in torch.load(file, weights_only=True).items()}, file)
    with pytest.raises(RuntimeError) as caught:
        run(("train", "distill"), output_dir=str(folder), **SHORT, **data)
    assert "other settings (member_weights: " in cause_of(caught.value)


@pytest.mark.parametrize(
    ("configs", "name"), [(("train", "distill"), "model_best"), (("train", "evaluate", "distilled"), "model")]
)
def test_without_weights_nothing_is_computed(
    configs: tuple[str, ...], name: str, data: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(configs, output_dir=str(tmp_path / "run"), **data)
    message = cause_of(caught.value)
    assert (
        f"no weights at {tmp_path / 'run'}" in message and f"models/{name}.pt" in message and "train first" in message
    )
    assert not list(tmp_path.rglob("*.*"))


def test_volumes_of_two_channels(tmp_path: Path) -> None:
    options: dict[str, Any] = {"spatial_size": [8, 8, 8], "in_channels": 2, "num_steps": 2, "residual": "l1"}
    folder = write_members(tmp_path, **options)
    parser = opened(("train", "distill"), output_dir=str(folder), **options).parser
    engine = Engine(lambda engine, batch: None)
    for name in ("load_weights", "take_over"):
        parser.get_parsed_content(name).attach(engine)
    engine.run([0])
    image = torch.rand(2, 2, 8, 8, 8) * 2 - 1
    given, target = parser.get_parsed_content("prepare_batch")({"image": image}, "cpu")
    student = parser.get_parsed_content("network")
    restored = student(given)
    assert torch.equal(given, image) and restored.shape == target.shape == image.shape
    assert restored.requires_grad and not target.requires_grad
    teacher = parser.get_parsed_content("scored_network")
    assert torch.equal(target, teacher.predict(image).reconstruction)
    assert torch.equal(restored, student.sampler(teacher.network[FOLDS[0]], image)[0])
