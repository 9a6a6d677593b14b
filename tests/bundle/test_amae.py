# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""AMAE from its pre-training to the evaluation: broken off, step by step, by one command, and with files missing."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from monai_anomaly.bundle.cli import main
from monai_anomaly.data import make_phantom, sample_dir
from monai_anomaly.networks.nets import MaskedAutoencoder

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TINY: dict[str, Any] = {
    "spatial_size": [32, 32],
    "hidden_size": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_hidden_size": 24,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
    "device": "$torch.device('cpu')",
}
SHORT: dict[str, Any] = {
    "max_epochs": 4,
    "warmup_epochs": 1,
    "batch_size": 4,
    "val_interval": 1,
    "checkpoint_seconds": 0,
    "learning_rate": 0.01,
}
OWN: dict[str, dict[str, Any]] = {
    "mae_pretrain": {"held_out": 0.2},
    "amae_stage1": {"foreground": "whole_image", "variants": 2, "dropout": 0.2},
    "amae": {"held_out": 0.2, "pseudo_labels": None, "fold": 1},
}


class Death(BaseException):
    """The run is over, and nothing of it is tidied up."""


def _die(*_: Any) -> None:
    raise Death


def run(name: str, configs: list[str], death: Any = None, **options: Any) -> Any:
    """What ``monai.bundle run`` does; ``death`` is an event of the trainer at which the run ends."""
    files = [str(BUNDLES / name / "configs" / f"{config}.json") for config in configs]
    options = {"bundle_root": str(BUNDLES / name), **TINY, **options}
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", **options)
    workflow.initialize()
    if death is not None:
        workflow.parser.get_parsed_content("train#trainer").add_event_handler(death, _die)
    workflow.run()
    return workflow.parser


def models(folder: Path) -> Any:
    """What a training has left."""
    names = ("model.pt", "model_best.pt", "checkpoint.pt")
    return {name: torch.load(folder / name, weights_only=True) for name in names}


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Whether two nested states are the same, tensors bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, value in enumerate(one):
            assert_same(value, other[i], f"{place}/{i}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, place


def reason(error: BaseException) -> str:
    """Text of the innermost error, which MONAI wraps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def told(folder: Path) -> dict[str, Any]:
    """Metrics of an evaluation, which has written scores and a report as well."""
    with open(folder / "scores.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 6
    assert (folder / "report.html").is_file()
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name a generated data set whose unlabeled images have targets, for the report of the purity."""
    folder = tmp_path_factory.mktemp("data")
    datalist = make_phantom(folder, size=32, num_training=10, num_unlabeled=8, num_validation=4, num_testing=6)
    content = json.loads(datalist.read_text())
    for i, item in enumerate(content["unlabeled"]):
        item["target"] = i % 2
    datalist.write_text(json.dumps(content))
    # generated images are alike, which the audit would take for copies
    return {"dataset_dir": str(folder), "datalist": str(datalist), "audit#unlabeled": "ignored"}


@pytest.fixture(scope="module")
def pretrained(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a pre-training of one epoch."""
    folder = tmp_path_factory.mktemp("pretrained")
    run("mae_pretrain", ["train"], output_dir=str(folder), **{**SHORT, "max_epochs": 1}, **data)
    return folder / "models" / "model.pt"


@pytest.mark.parametrize("name", list(OWN))
def test_a_training_that_is_broken_off_ends_where_an_unbroken_one_does(
    name: str, data: dict[str, Any], tmp_path: Path
) -> None:
    options = {**SHORT, **data, **OWN[name]}
    below = "fold_1/models" if name == "amae" else "models"
    length = len(
        run(name, ["train"], output_dir=str(tmp_path / "unbroken"), **options).get_parsed_content("train#sampler")
    )
    length //= 4  # batches an epoch
    for part in (Events.ITERATION_COMPLETED(once=3), Events.EPOCH_STARTED(once=4)):
        with pytest.raises(Death):
            run(name, ["train"], part, output_dir=str(tmp_path / "broken"), **options)
        assert not (tmp_path / "broken" / below / "model.pt").exists()
        torch.rand(7)  # whatever another process has drawn
        left = torch.load(tmp_path / "broken" / below / "checkpoint.pt", weights_only=True)
        done = left["trainer"]["iteration"] / length
        assert left["also"]["schedule"]["last_epoch"] == done * length and 1 <= done < 4
        # the rate has risen for one epoch, and then falls along a cosine
        rate = 0.01 * 0.5 * (1 + math.cos(math.pi * (done - 1) / 3))
        assert left["optimizer"]["param_groups"][0]["lr"] == pytest.approx(rate)
    run(name, ["train"], output_dir=str(tmp_path / "broken"), **options)
    expected = models(tmp_path / "unbroken" / below)
    assert_same(models(tmp_path / "broken" / below), expected)
    assert expected["checkpoint.pt"]["also"]["schedule"]["last_epoch"] == 4 * length
    assert expected["checkpoint.pt"]["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", list(OWN))
def test_what_was_trained_is_not_trained_again_with_other_settings(
    name: str, data: dict[str, Any], tmp_path: Path
) -> None:
    options = {"output_dir": str(tmp_path), **SHORT, **data, **OWN[name], "max_epochs": 1}
    run(name, ["train"], **options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("model.pt")}
    run(name, ["train"], **options)
    changes = {"mae_pretrain": "loss_on", "amae_stage1": "foreground", "amae": "num_heads"}
    values = {"loss_on": "all", "foreground": "above_minimum", "num_heads": 3}
    change = changes[name]
    with pytest.raises(RuntimeError) as caught:
        run(name, ["train"], **options | {change: values[change]})
    assert "other settings (" in reason(caught.value), reason(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("model.pt")} == before


def test_step_by_step_from_the_pre_training_to_the_evaluation(
    pretrained: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    stage1 = {"output_dir": str(tmp_path / "stage1"), **data, **SHORT, **OWN["amae_stage1"], "max_epochs": 2}
    stage1["start_weights"] = str(pretrained)
    run("amae_stage1", ["train"], **stage1)
    run("amae_stage1", ["train", "evaluate"], **stage1)
    assert told(tmp_path / "stage1")["method"] == "AMAE stage 1"
    # the encoder is that of the pre-training, and its training settings know of which
    state = torch.load(tmp_path / "stage1/models/model.pt", weights_only=True)
    start = torch.load(pretrained, weights_only=True)
    shared = [name for name in start if name.startswith("network.vit.blocks")]
    assert shared and all(torch.equal(state[f"network.encoder.{name[8:]}"], start[name]) for name in shared)

    overlay = {**stage1, "output_dir": str(tmp_path / "labels"), "pseudo_label_mode": "global"}
    overlay["checkpoint"] = str(tmp_path / "stage1/models/model.pt")
    run("amae_stage1", ["train", "pseudo_labels"], **overlay)
    labels = json.loads((tmp_path / "labels/pseudo_labels.json").read_text())
    assert labels["counts"] == {"unlabeled": 8, "normal": 4, "abnormal": 4, "left_out": 0}
    assert labels["purity"]["abnormal"] in (0, 0.25, 0.5, 0.75, 1)
    named = labels["normal"] + labels["abnormal"]
    assert sorted(named) == [f"images/unlabeled_{i:03d}.png" for i in range(8)]

    amae = {"output_dir": str(tmp_path / "amae"), **data, **SHORT, "max_epochs": 2, "start_weights": str(pretrained)}
    amae |= {"pseudo_labels": str(tmp_path / "labels/pseudo_labels.json"), "held_out": 0.2, "num_masks": 2}
    for fold in (0, 1):
        run("amae", ["train"], fold=fold, **amae)
        settings = json.loads((tmp_path / f"amae/fold_{fold}/models/training.json").read_text())
        assert settings["epoch_length"] == (11 // 4, 3 // 3)[fold]  # 10 + 4 images, 4 images, less those held out
    run("amae", ["train", "evaluate"], **amae)
    metrics = told(tmp_path / "amae")
    assert metrics["method"] == "AMAE" and metrics["settings"]["training"]["transductive"] is False
    assert metrics["settings"]["num_masks"] == 2 and "transductive" not in metrics["settings"]


def test_both_modules_start_from_the_same_weights(pretrained: Path, data: dict[str, Any], tmp_path: Path) -> None:
    start = torch.load(pretrained, weights_only=True)
    for weights in (None, str(pretrained)):
        states = []
        for fold in (0, 1):
            options = {**TINY, **data, "output_dir": str(tmp_path), "start_weights": weights, "pseudo_labels": None}
            parser = ConfigWorkflow(
                str(BUNDLES / "amae/configs/train.json"), workflow_type="train", fold=fold, **options
            )
            parser.initialize()
            states.append(parser.parser.get_parsed_content("base_network").state_dict())
            if fold == 0:  # as the evaluation makes them
                both = parser.parser.get_parsed_content("network_def").network
                assert_same(dict(both[0].state_dict()), dict(both[1].state_dict()))
        assert_same(dict(states[0]), dict(states[1]))
        same = all(torch.equal(value, start[f"network.{name}"]) for name, value in states[0].items())
        assert same is (weights is not None)


def test_a_convolutional_network_trained_with_its_head(data: dict[str, Any], tmp_path: Path) -> None:
    options = {"output_dir": str(tmp_path), **data, **SHORT, "foreground": "whole_image", "max_epochs": 1}
    parser = run("amae_stage1", ["train", "cnn"], **options)
    network = parser.get_parsed_content("network")
    assert not network.frozen and type(network.encoder).__name__ == "ConvolutionalEncoder"
    assert all(parameter.requires_grad for parameter in network.parameters())
    run("amae_stage1", ["train", "cnn", "evaluate"], **options)
    assert told(tmp_path)["settings"]["training"]["frozen"] is False
    options |= {"output_dir": str(tmp_path / "labels"), "checkpoint": str(tmp_path / "models/model.pt")}
    run("amae_stage1", ["train", "cnn", "pseudo_labels"], pseudo_label_mode="global", **options)
    assert len(json.loads((tmp_path / "labels/pseudo_labels.json").read_text())["abnormal"]) == 4


@pytest.mark.parametrize("name", ["amae_stage1", "amae"])
@pytest.mark.parametrize("kind", ["missing", "of another network", "no weights"])
def test_wrong_start_weights_are_named(kind: str, name: str, data: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    if kind == "of another network":
        torch.save(MaskedAutoencoder(2, 1, 32, 16, 24, 1, 2, None, 24, 1, 2).state_dict(), path)
    elif kind == "no weights":
        path.write_text("text")
    options = {**SHORT, **data, **OWN[name], "output_dir": str(tmp_path / "out"), "start_weights": str(path)}
    with pytest.raises(RuntimeError) as caught:
        run(name, ["train"], **options)
    messages, error = [], caught.value
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    remedy = "train the bundle mae_pretrain" if kind == "missing" else "does not fit the network: give the settings"
    assert any(str(path) in message and remedy in message for message in messages)
    assert not list(tmp_path.rglob("model*.pt"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "does not exist: write it with configs/pseudo_labels.json of the bundle amae_stage1"),
        ({"normal": ["images/unlabeled_000.png"], "abnormal": []}, "calls no image abnormal, so module B"),
        ({"normal": [], "abnormal": ["images/other.png"]}, "not in the unlabeled section, first images/other.png"),
    ],
    ids=["missing", "empty class", "of other images"],
)
def test_wrong_pseudo_labels_are_named(labels: Any, message: str, data: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pseudo_labels.json"
    if labels is not None:
        path.write_text(json.dumps(labels))
    options = {**SHORT, **data, **OWN["amae"], "output_dir": str(tmp_path / "out"), "pseudo_labels": str(path)}
    with pytest.raises(RuntimeError) as caught:
        run("amae", ["train"], **options)
    assert str(path) in reason(caught.value) and message in reason(caught.value)


def test_no_image_called_abnormal_ends_stage_1_with_a_remedy(data: dict[str, Any], tmp_path: Path) -> None:
    options = {"output_dir": str(tmp_path), **SHORT, **data, **OWN["amae_stage1"], "max_epochs": 1}
    run("amae_stage1", ["train"], **options)
    path = tmp_path / "models/model.pt"
    state = torch.load(path, weights_only=True)
    bias = [name for name in state if name.startswith("network.head") and name.endswith("bias")][-1]
    state[bias] = torch.tensor([50.0, -50.0])  # sure that everything is healthy
    torch.save(state, path)
    with pytest.raises(RuntimeError) as caught:
        run("amae_stage1", ["train", "pseudo_labels"], **options)
    assert "no unlabeled image is called abnormal" in reason(caught.value)


def test_one_module_alone_gives_no_map(data: dict[str, Any], tmp_path: Path) -> None:
    options = {"output_dir": str(tmp_path), **SHORT, **data, "pseudo_labels": None, "max_epochs": 1}
    run("amae", ["train"], fold=0, **options)
    with pytest.raises(RuntimeError) as caught:
        run("amae", ["train", "evaluate"], **options)
    assert "module B of the pair has not been trained" in reason(caught.value)


def test_normalized_patches_give_a_start_but_no_map(data: dict[str, Any], tmp_path: Path) -> None:
    options = {**SHORT, **data, "max_epochs": 1}
    pre = options | {"output_dir": str(tmp_path / "pre"), "held_out": 0.2}
    parser = run("mae_pretrain", ["train"], norm_pix=True, **pre)
    assert parser.get_parsed_content("loss").norm_pix
    assert parser.get_parsed_content("held#evaluator#iteration_update#loss").norm_pix
    weights = tmp_path / "pre/models/model.pt"
    inference = {"output_dir": str(tmp_path / "maps"), "dataset_dir": data["dataset_dir"], "checkpoint": str(weights)}
    for configs, others in ((["train", "evaluate"], pre), (["inference"], inference)):
        with pytest.raises(RuntimeError) as caught:
            run("mae_pretrain", configs, **others)
        assert "norm_pix, after which predictions are no images" in reason(caught.value)
    amae = options | {"output_dir": str(tmp_path / "amae"), "pseudo_labels": None, "start_weights": str(weights)}
    parser = run("amae", ["train"], fold=0, **amae)
    assert not parser.get_parsed_content("loss").norm_pix
    assert not parser.get_parsed_content("held#evaluator#iteration_update#loss").norm_pix
    assert "norm_pix" not in parser.config, "what its modules predict must be images"


def test_a_pre_training_on_the_test_images_is_refused(data: dict[str, Any], tmp_path: Path) -> None:
    options = {**SHORT, **data, "output_dir": str(tmp_path), "sections": ["training", "testing"]}
    with pytest.raises(RuntimeError) as caught:
        run("mae_pretrain", ["train"], **options)
    assert "sections must not be those that a method is watched or tested with" in reason(caught.value)
    assert not (tmp_path / "models").exists()


def test_pre_training_on_a_folder_of_images(data: dict[str, Any], tmp_path: Path) -> None:
    options = {**SHORT, "max_epochs": 1, "output_dir": str(tmp_path), "datalist": f"{data['dataset_dir']}/images"}
    parser = run("mae_pretrain", ["train"], **options)
    assert len(parser.get_parsed_content("all_items")) == 10 + 8 + 4 + 6
    assert (tmp_path / "models/model.pt").is_file()


@pytest.mark.slow
def test_all_by_one_command_whose_repetition_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    configs = ["train", "evaluate", "all_folds", "pipeline"]
    steps = ("pretraining", "stage1")
    options = {"output_dir": str(tmp_path), **SHORT, "max_epochs": 1, "foreground": "whole_image"}
    options |= {"epochs_of_pretraining": 1, "epochs_of_stage1": 1, "variants": 1, "pseudo_label_mode": "global"}
    # a few real images, which the audits of all steps find nothing against
    content = json.loads(Path(sample_dir(), "datalist.json").read_text())
    few = {"training": 10, "unlabeled": 8, "validation": 4, "testing": 6}
    sections = {name: content[name][:: len(content[name]) // number][:number] for name, number in few.items()}
    (tmp_path / "datalist.json").write_text(json.dumps(sections))
    options |= {"dataset_dir": sample_dir(), "datalist": str(tmp_path / "datalist.json")}
    run("amae", configs, **options)
    assert told(tmp_path)["settings"]["training"]["transductive"] is False
    assert told(tmp_path / "stage1/evaluation")["method"] == "AMAE stage 1"
    labels = json.loads((tmp_path / "stage1/pseudo_labels/pseudo_labels.json").read_text())
    assert labels["section"] == "unlabeled" and labels["counts"]["unlabeled"] == 8
    kept = [path for step in steps for path in (tmp_path / step).rglob("*") if path.suffix in (".pt", ".csv")]
    before = {path: path.stat().st_mtime_ns for path in [*kept, *(tmp_path / step / "job.json" for step in steps)]}
    assert len(before) == 2 * 4 + 1 + 2
    scores = (tmp_path / "scores.csv").read_text()
    modules = [models(tmp_path / f"fold_{fold}/models") for fold in (0, 1)]
    run("amae", configs, **options)
    assert_same([models(tmp_path / f"fold_{fold}/models") for fold in (0, 1)], modules)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (tmp_path / "scores.csv").read_text() == scores

    # what follows other weights is done again, not taken from before
    state = tmp_path / "pretraining/mae/models/model.pt"
    weights = torch.load(state, weights_only=True)
    torch.save({name: value + 1e-3 if value.is_floating_point() else value for name, value in weights.items()}, state)
    with pytest.raises(RuntimeError) as caught:
        run("amae", configs, **options)
    assert "start_weights" in reason(caught.value)

    # the modules are packed into one file for inference
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    config = json.loads((BUNDLES / "amae/configs/inference.json").read_text())
    (bundle / "configs/inference.json").write_text(
        json.dumps(config | {k: v for k, v in TINY.items() if k != "device"})
    )
    assert main(["pack", str(bundle), str(tmp_path)]) == 0
    assert (bundle / "models/model.pt").is_file()
