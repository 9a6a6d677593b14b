# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights carry the settings that shape their network: no step after the training need be told them again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, load
from PIL import Image

from monai_anomaly.bundle.build import create_bundle
from monai_anomaly.bundle.cli import main
from monai_anomaly.bundle.verify import verify_bundle
from monai_anomaly.data import make_phantom
from monai_anomaly.handlers import TrainedSettings
from monai_anomaly.utils import message_of_ours, read_settings, save_weights, write_json

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SHAPE: dict[str, Any] = {"spatial_size": [16, 16], "hidden_channels": 4, "latent_channels": 3, "num_members": 2}


def run(name: str, configs: list[str], bundles: Path = BUNDLES, **overrides: Any) -> ConfigWorkflow:
    """What ``monai.bundle run`` does."""
    files = [str(bundles / name / "configs" / f"{config}.json") for config in configs]
    kind = "inference" if configs[0] == "inference" else "train"
    options = {"bundle_root": str(bundles / name), "device": "cpu", **overrides}
    workflow = ConfigWorkflow(config_file=files, workflow_type=kind, logging_file=False, **options)
    workflow.initialize()
    workflow.run()
    return workflow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A generated data set of RGB images."""
    folder = tmp_path_factory.mktemp("images")
    datalist = make_phantom(folder, size=16, num_training=8, num_unlabeled=0, num_validation=4, num_testing=4, seed=1)
    for file in [
        item["image"] for items in json.loads(datalist.read_text()).values() for item in items if "image" in item
    ]:
        gray = np.asarray(Image.open(folder / file))
        Image.fromarray(np.stack([gray, gray // 2, 255 - gray], -1)).save(folder / file)
    return {"dataset_dir": str(folder), "datalist": str(datalist)}


@pytest.fixture(scope="module")
def trained(images: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training of two small networks on these has left; the number of channels was not given."""
    folder = tmp_path_factory.mktemp("run")
    run("d2ue_ae", ["train"], output_dir=str(folder), max_epochs=1, batch_size=4, val_interval=1, **SHAPE, **images)
    return folder


def scores(folder: Path) -> dict[str, float]:
    """Scores by image."""
    with open(folder / "scores.csv", newline="") as stream:
        return {Path(row["image"]).name: float(row["score"]) for row in csv.DictReader(stream)}


def told(error: BaseException) -> str:
    """The reason that ends the output of a command."""
    return message_of_ours(error) or ""


def test_both_files_of_weights_carry_the_settings(trained: Path) -> None:
    beside = json.loads((trained / "models/training.json").read_text())
    assert beside["in_channels"] == 3 and beside.items() >= SHAPE.items()
    for name in ("model.pt", "model_best.pt"):
        assert read_settings(trained / "models" / name) == beside
        state = torch.load(trained / "models" / name, weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_evaluation_and_inference_need_no_setting_of_the_training(
    images: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    run("d2ue_ae", ["train", "evaluate"], output_dir=str(trained), **images)
    alone = tmp_path / "alone.pt"  # without the file beside it
    shutil.copyfile(trained / "models/model.pt", alone)
    run("d2ue_ae", ["inference"], checkpoint=str(alone), output_dir=str(tmp_path), **images)
    evaluated, inferred = scores(trained), scores(tmp_path)
    assert len(evaluated) == 4 and evaluated == {
        name: pytest.approx(value, rel=1e-5) for name, value in inferred.items()
    }
    assert json.loads((trained / "metrics.json").read_text())["settings"]["training"]["num_members"] == 2


def test_settings_beside_the_weights_serve_as_well(images: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    torch.save(dict(torch.load(trained / "models/model.pt", weights_only=True)), tmp_path / "model.pt")
    assert read_settings(tmp_path / "model.pt") == {}
    shutil.copyfile(trained / "models/training.json", tmp_path / "training.json")
    run("d2ue_ae", ["inference"], checkpoint=str(tmp_path / "model.pt"), output_dir=str(tmp_path), **images)
    assert len(scores(tmp_path)) == 4


@pytest.mark.parametrize("configs", [["train", "evaluate"], ["inference"]])
@pytest.mark.parametrize(
    ("name", "value", "trained_with"), [("in_channels", 1, 3), ("spatial_size", [32, 32], [16, 16])]
)
def test_a_setting_that_contradicts_the_weights_is_refused_with_both_values(
    configs: list[str], name: str, value: Any, trained_with: Any, images: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    weights = str(trained / "models/model.pt")
    with pytest.raises(RuntimeError) as caught:
        run("d2ue_ae", configs, checkpoint=weights, output_dir=str(tmp_path), **{name: value}, **images)
    message = told(caught.value)
    assert f"{name} {value} contradicts the weights {weights}, which were trained with {name} {trained_with}" in message
    assert f"leave out --{name}" in message


def test_the_same_setting_given_again_is_no_contradiction(
    images: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    weights = str(trained / "models/model.pt")
    run("d2ue_ae", ["inference"], checkpoint=weights, output_dir=str(tmp_path), in_channels=3, **SHAPE, **images)


def test_bundle_load_builds_the_network_of_the_weights_wherever_it_is_called(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = create_bundle("d2ue_ae", tmp_path / "bundles", trained / "models/model.pt")
    (bundle / "models/training.json").unlink()
    monkeypatch.chdir(tmp_path)
    options = {"bundle_dir": str(bundle.parent), "workflow_type": "inference", "source": "github", "device": "cpu"}
    network = load("d2ue_ae", **options)
    expected = torch.load(trained / "models/model.pt", weights_only=True)
    assert expected.keys() == network.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert network.eval()(torch.rand(1, 3, 16, 16)).shape == (1, 1, 16, 16)


def test_weights_that_do_not_fit_are_not_loaded_in_part(trained: Path, tmp_path: Path) -> None:
    state = dict(torch.load(trained / "models/model.pt", weights_only=True))  # without its settings
    bundle = create_bundle("d2ue_ae", tmp_path)
    torch.save(state, bundle / "models/model.pt")
    options = {"bundle_dir": str(tmp_path), "workflow_type": "inference", "source": "github", "device": "cpu"}
    with pytest.raises(RuntimeError, match="of the [0-9]+ tensors of EnsembleMap, such as .*Nothing was loaded"):
        load("d2ue_ae", **options)
    torch.save({f"other.{name}": value for name, value in state.items()}, bundle / "models/model.pt")
    with pytest.raises(RuntimeError, match="Nothing was loaded"):
        load("d2ue_ae", **options)
    network = ConfigParser.load_config_file(str(bundle / "configs/inference.json"))
    fresh = ConfigParser(network | {"bundle_root": str(tmp_path / "none")}).get_parsed_content("network_def")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="encoder.0.0.weight is 16x3x4x4 instead of 16x1x4x4"):
            fresh.load_state_dict(state, strict=strict)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


def test_export_and_verify_need_no_setting_of_the_training(trained: Path, tmp_path: Path) -> None:
    configs = BUNDLES / "d2ue_ae/configs"
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(trained / "models/model.pt"),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
    )
    assert torch.jit.load(tmp_path / "model.ts")(torch.rand(2, 3, 16, 16)).shape == (2, 1, 16, 16)
    bundle = create_bundle("d2ue_ae", tmp_path, trained / "models/model.pt")
    metadata = json.loads((bundle / "configs/metadata.json").read_text())["network_data_format"]
    assert metadata["inputs"]["image"]["num_channels"] == 3 and metadata["outputs"]["pred"]["spatial_shape"] == [16, 16]
    results = verify_bundle(bundle)
    assert all(result.status == "pass" for result in results), "\n".join(map(str, results))


def test_folds_a_refiner_and_what_they_are_packed_into(images: dict[str, Any], tmp_path: Path) -> None:
    """Backbone, width, size, channels and numbers of networks are given once."""
    folder = tmp_path / "run"
    small = {"hidden_channels": 4, "spatial_size": [16, 16], "num_folds": 3, "refiner_channels": 4, "max_epochs": 1}
    common = {"output_dir": str(folder), "score": "refined_intra", **images}
    for fold in (0, 1):
        run("ddad", ["train", "aeu"], fold=fold, num_normal=2, batch_size=4, **small, **common)
    with pytest.raises(RuntimeError) as caught:
        run("ddad", ["train", "refine"], **{**common, "num_normal": 1})
    assert "num_normal 1 contradicts the weights" in told(caught.value)
    run("ddad", ["train", "refine"], max_epochs=1, refiner_channels=4, **common)
    run("ddad", ["train", "evaluate"], **common)

    bundle = create_bundle("ddad", tmp_path)
    assert main(["pack", str(bundle), str(folder)]) == 0
    settings = read_settings(bundle / "models/model.pt")
    assert (settings["num_folds"], settings["refiner_channels"], settings["predict_variance"]) == (3, 4, True)
    packed = {"score": "refined_intra", "output_dir": str(tmp_path / "new"), **images}
    run("ddad", ["inference"], tmp_path, **packed)
    evaluated, inferred = scores(folder), scores(tmp_path / "new")
    assert evaluated == {name: pytest.approx(inferred[name], rel=1e-5) for name in evaluated}
    with pytest.raises(RuntimeError) as caught:
        run("ddad", ["inference"], tmp_path, refiner_channels=8, **packed)
    assert "refiner_channels 8 contradicts the weights" in told(caught.value) and "refiner_channels 4" in told(
        caught.value
    )


def test_folds_that_were_trained_differently_are_not_mixed(tmp_path: Path) -> None:
    for fold, width in ((0, 4), (1, 8)):
        write_json(tmp_path / f"fold_{fold}/models/training.json", {"hidden_channels": width, "seed": fold})
    with pytest.raises(ValueError, match="fold_0/models was trained with hidden_channels 4, .*fold_1/models with 8"):
        TrainedSettings({"hidden_channels": 2048}, tmp_path)


@pytest.mark.parametrize("value", ["$1", "@seed", ["%a"], {"a": 1}])
def test_settings_of_weights_are_plain_values(value: Any, tmp_path: Path) -> None:
    save_weights({"weight": torch.ones(1)}, tmp_path / "model.pt", {"pool": value, "other": value})
    with pytest.raises(ValueError, match="setting pool of the weights .*no plain value"):
        TrainedSettings({"pool": "mean"}, tmp_path / "model.pt")
    assert TrainedSettings({"seed": 1}, tmp_path / "model.pt")["seed"] == 1
    with pytest.raises(ValueError, match="setting pool by default .*no plain value"):
        TrainedSettings({"pool": value})["pool"]
