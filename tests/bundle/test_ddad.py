# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""DDAD from its two modules to a refined, packed bundle: broken off, with other networks, and with data missing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from monai_anomaly.bundle.build import bundle_files
from monai_anomaly.bundle.cli import main
from monai_anomaly.data import make_phantom
from monai_anomaly.engines import BundleSteps, FoldRuns
from monai_anomaly.utils import file_mark, write_json

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "ddad"
TINY: dict[str, Any] = {
    "bundle_root": str(BUNDLE),
    "spatial_size": [16, 16],
    "num_folds": 4,
    "hidden_channels": 4,
    "latent_channels": 2,
    "refiner_channels": 4,
    "device": "$torch.device('cpu')",
}
SHORT: dict[str, Any] = {"max_epochs": 3, "batch_size": 4, "val_interval": 1, "checkpoint_seconds": 0}


class Death(BaseException):
    """The run is over, and nothing of it is tidied up."""


def _die(*_: Any) -> None:
    raise Death


def run(configs: list[str], death: Any = None, **options: Any) -> Any:
    """What ``monai.bundle run`` does; ``death`` is an event of the trainer at which the run ends."""
    files = [str(BUNDLE / "configs" / f"{config}.json") for config in configs]
    kind = "inference" if configs[0] == "inference" else "train"
    workflow = ConfigWorkflow(config_file=files, workflow_type=kind, **{**TINY, **options})
    workflow.initialize()
    if death is not None:
        workflow.parser.get_parsed_content("train#trainer").add_event_handler(death, _die)
    workflow.run()
    return workflow.parser


def scores(folder: Path) -> dict[str, float]:
    """What an evaluation or inference has found, by image."""
    with open(folder / "scores.csv", newline="") as stream:
        return {Path(row["image"]).name: float(row["score"]) for row in csv.DictReader(stream)}


def reason(error: BaseException | None) -> str:
    """Texts of an error and its causes: MONAI wraps ours."""
    return "" if error is None else f"{error}\n{reason(error.__cause__)}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name a generated data set."""
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, size=16, num_training=12, num_unlabeled=6, num_validation=4, num_testing=6)
    return {"dataset_dir": str(folder), "audit#unlabeled": "ignored"}


@pytest.fixture(scope="module")
def members(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the networks of both modules."""
    folder = tmp_path_factory.mktemp("members")
    for fold in range(4):
        run(["train"], fold=fold, output_dir=str(folder), **SHORT, **data)
    return folder


@pytest.fixture(scope="module")
def refined(members: Path, data: dict[str, Any]) -> Path:
    """The same folder with a refiner."""
    run(["train", "refine"], output_dir=str(members), **SHORT, **data)
    return members


def test_what_each_network_has_learned_from_is_on_record(members: Path) -> None:
    told = [json.loads((members / f"fold_{k}/models/training.json").read_text()) for k in range(4)]
    assert [settings["fold"] for settings in told] == [0, 1, 2, 3]
    assert [settings["epoch_length"] for settings in told] == [3, 3, 4, 4]  # 12 healthy, and 6 unlabeled ones
    assert all(settings["num_normal"] == 2 and settings["transductive"] is False for settings in told)
    assert len({settings["training_data"] for settings in told}) == 4, "each in an order of its own"


def test_a_refiner_that_is_broken_off_ends_where_an_unbroken_one_does(
    refined: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    options = {"output_dir": str(tmp_path), "checkpoint": str(refined), **SHORT, **data}
    with pytest.raises(Death):
        run(["train", "refine"], Events.ITERATION_COMPLETED(once=5), **options)
    models = tmp_path / "refiner/models"
    assert (models / "checkpoint.pt").exists() and not (models / "model.pt").exists()
    torch.rand(3)  # whatever another process has drawn
    run(["train", "refine"], **options)
    states = [torch.load(f / "refiner/models/model.pt", weights_only=True) for f in (tmp_path, refined)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    settings = json.loads((models / "training.json").read_text())
    assert settings["score"] == "refined_dual" and settings["members"] == [0, 1, 2, 3]
    assert settings["member_weights"] == [file_mark(refined / f"fold_{fold}/models/model.pt") for fold in range(4)]
    for fold in range(4):
        assert not (tmp_path / f"fold_{fold}").exists(), "the networks are only read"


def test_a_refiner_of_other_networks_is_not_taken_for_theirs(
    refined: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(refined, tmp_path / "run")
    path = tmp_path / "run/fold_1/models/model.pt"
    torch.save({name: value + 0.01 for name, value in torch.load(path, weights_only=True).items()}, path)
    with pytest.raises(RuntimeError) as caught:
        run(["train", "refine"], output_dir=str(tmp_path / "run"), **SHORT, **data)
    assert "other settings (member_weights: " in reason(caught.value)


def test_every_score_is_evaluated_and_inferred_alike(refined: Path, data: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    for score in ("inter", "intra", "rec", "refined_dual"):
        options = {"checkpoint": str(refined), "score": score, **TINY}
        run(["train", "evaluate"], output_dir=str(tmp_path / score), **options, **data)
        found[score] = scores(tmp_path / score)
        settings = json.loads((tmp_path / score / "metrics.json").read_text())["settings"]
        assert settings["score"] == score and settings["training"]["fold"] == [0, 1, 2, 3]
        assert ("refiner" in settings) is (score == "refined_dual")
    assert len({tuple(values.values()) for values in found.values()}) == 4
    write_json(tmp_path / "bundle/configs/inference.json", bundle_files("ddad")["configs/inference.json"] | TINY)
    assert main(["pack", str(tmp_path / "bundle"), str(refined)]) == 0
    packed = {"checkpoint": str(tmp_path / "bundle/models/model.pt"), "dataset_dir": f"{data['dataset_dir']}/images"}
    for score in ("inter", "refined_dual"):
        run(["inference"], output_dir=str(tmp_path / "inferred"), score=score, **packed)
        inferred = scores(tmp_path / "inferred")
        assert {name: inferred[name] for name in found[score]} == pytest.approx(found[score], rel=1e-4)
        assert list((tmp_path / "inferred/maps").iterdir())


@pytest.mark.parametrize("kind", ["memae", "aeu"])
def test_other_networks_by_one_file_with_every_command(kind: str, data: dict[str, Any], tmp_path: Path) -> None:
    options = {"output_dir": str(tmp_path), **data}
    for fold in (0, 2):
        run(["train", kind], fold=fold, **SHORT, **options)
    weights = torch.load(tmp_path / "fold_2/models/model.pt", weights_only=True)
    assert ("memory.slots" in weights) is (kind == "memae")
    assert weights["head.weight"].shape[1] == (2 if kind == "aeu" else 1)
    parser = run(["train", kind, "evaluate"], **options)
    assert parser["learning_rate"] == 0.0005
    found = scores(tmp_path)
    assert set(found) == {f"testing_{i:03d}.png" for i in range(6)}
    run(["train", "evaluate"], **options)
    assert scores(tmp_path) == found, "the weights know their network"


def test_memae_has_the_settings_of_the_published_code() -> None:
    files = bundle_files("ddad")
    settings = files["configs/memae.json"]
    default = files["configs/train.json"]["trained"]["defaults"]["shrink_threshold"]
    assert (settings["memory_slots"], settings.get("shrink_threshold", default)) == (25, 0.0)
    assert settings["member_loss"]["weights"] == [1.0, 0.0002]


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        (["train", "refine"], {"score": "inter"}, "a refiner is trained for a score among"),
        (["train", "evaluate"], {"score": "refined_dual"}, "needs a trained refiner"),
        (["train", "evaluate"], {"score": "both"}, "score must be one of"),
    ],
)
def test_wrong_scores_are_refused(
    configs: list[str], options: dict[str, Any], message: str, members: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    for fold in range(4):
        (tmp_path / f"fold_{fold}").symlink_to(members / f"fold_{fold}")
    with pytest.raises(RuntimeError) as caught:
        run(configs, output_dir=str(tmp_path), **options, **data)
    assert message in reason(caught.value)


def test_without_unlabeled_images_the_normal_module_alone(tmp_path: Path) -> None:
    make_phantom(tmp_path, size=16, num_training=8, num_unlabeled=0, num_validation=2, num_testing=4)
    options = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "run")}
    with pytest.raises(RuntimeError) as caught:
        run(["train", "all_folds"], **SHORT, **options)
    assert "unlabeled" in reason(caught.value) and str(tmp_path) in reason(caught.value)
    assert not list(tmp_path.rglob("fold_*")), "before any network is trained"
    for fold in (0, 1):
        run(["train"], fold=fold, score="intra", **SHORT, **options)
    run(["train", "evaluate"], score="intra", **options)
    assert len(scores(tmp_path / "run")) == 4
    with pytest.raises(RuntimeError) as caught:
        run(["train"], fold=2, score="intra", **SHORT, **options)
    assert "no images in the section 'unlabeled'" in reason(caught.value)


def test_transductive_learns_from_the_test_images_and_says_so(tmp_path: Path) -> None:
    make_phantom(tmp_path, size=16, num_training=8, num_unlabeled=0, num_validation=2, num_testing=4)
    options = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "run"), "transductive": True}
    for fold in (0, 2):
        run(["train"], fold=fold, **SHORT, **options)
    # an evaluation whose command says otherwise does not know better than the training
    run(["train", "evaluate"], **options | {"transductive": False, "audit#unlabeled": "ignored"})
    told = json.loads((tmp_path / "run/metrics.json").read_text())
    assert told["transductive"] is True and told["settings"]["training"]["transductive"] is True
    assert "transductive" not in told["settings"]
    assert any("transductive" in warning for warning in told["warnings"])
    assert json.loads((tmp_path / "run/fold_2/models/training.json").read_text())["epoch_length"] == 3


@pytest.mark.slow
def test_one_command_trains_all_and_two_processes_refine(data: dict[str, Any], tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(BUNDLE.parents[1])
    options = {**TINY, **SHORT, **data, "output_dir": str(tmp_path), "max_epochs": 1}
    options.pop("device")  # of each process
    texts = {key: value if isinstance(value, str) else repr(value) for key, value in options.items()}
    settings = [part for key, value in texts.items() for part in (f"--{key}", value)]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    chosen = ["--folds", "[0,1,2]", "--jobs", "2"]
    for launcher, configs, more in (
        ([], ["train", "all_folds"], chosen),
        (several, ["train", "refine", "multi_gpu_train"], []),
    ):
        files = str([str(BUNDLE / f"configs/{config}.json") for config in configs])
        command = [sys.executable, *launcher, "-m", "monai.bundle", "run", "--config_file", files, *settings, *more]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-4000:]
    run(["train", "evaluate"], output_dir=str(tmp_path), score="refined_dual", **data)
    assert len(scores(tmp_path)) == 6


@pytest.mark.parametrize("score", ["inter", "intra", "rec", "refined_dual", "refined_intra"])
def test_one_command_refines_what_needs_it_of_the_networks_it_is_asked_for(
    score: str, members: Path, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in range(4):
        (tmp_path / f"fold_{fold}").symlink_to(members / f"fold_{fold}")
    taken: list[BundleSteps] = []
    trained: list[FoldRuns] = []  # they are there already
    monkeypatch.setattr("monai_anomaly.engines.FoldRuns.run", lambda folds: trained.append(folds))
    monkeypatch.setattr("monai_anomaly.engines.BundleSteps.run", lambda steps: taken.append(steps))
    monkeypatch.chdir(tmp_path)
    options = {"output_dir": ".", "score": score, "weights_name": "model_best.pt", "jobs": 1, **data}
    if not score.startswith("refined"):
        run(["train", "evaluate", "all_folds", "pipeline"], **options)
        assert len(scores(tmp_path)) == 6 and not taken
        with pytest.raises(RuntimeError) as caught:
            run(["train", "evaluate", "all_folds", "pipeline"], **options | {"score": "both"})
        assert "score must be one of" in reason(caught.value) and len(trained) == 1, "before anything is trained"
        return
    with pytest.raises(RuntimeError) as caught:
        run(["train", "evaluate", "all_folds", "pipeline"], **options)
    assert "needs a trained refiner" in reason(caught.value)
    (steps,) = taken
    assert steps.uses == [f"fold_{fold}/models/model_best.pt" for fold in range(4)]
    assert steps.steps["training"]["settings"]["weights_name"] == "model_best.pt"
    assert steps.steps["training"]["results"] == [str(tmp_path / "refiner/models/model.pt")]


@pytest.mark.slow
def test_all_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {**SHORT, "max_epochs": 1, "output_dir": str(tmp_path), "spatial_size": [32, 32]}
    run(["train", "evaluate", "all_folds", "pipeline"], **options)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["settings"]["score"] == "refined_dual" and metrics["counts"]["images"] == 120
    refiner = tmp_path / "refiner/models/model.pt"
    before = refiner.stat().st_mtime_ns
    run(["train", "evaluate", "all_folds", "pipeline"], **options)
    assert refiner.stat().st_mtime_ns == before
