# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted_networks import SMALL_FIT
from torch import Tensor

from monai_anomaly.bundle.build import recipe_names
from monai_anomaly.data.phantom import make_phantom

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "d2ue_ae"
PROBE = Path(__file__).with_name("bundle_probe.py")
EPOCHS, MEMBERS = 2, 3


def _run(folder: Path, processes: int, configs: list[str], **settings: Any) -> None:
    """Run the bundle from its folder, as its README says, with a data set and a network small enough for a test."""
    small = {"dataset_dir": str(folder / "data"), "spatial_size": [32, 32], "latent_channels": 4, "hidden_channels": 8}
    (folder / "small.json").write_text(json.dumps(small | settings), encoding="utf-8")
    files = ",".join([*(f"'configs/{name}.json'" for name in configs), f"'{folder / 'small.json'}'"])
    command = [sys.executable, str(PROBE)]
    if processes > 1:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            str(PROBE),
        ]
    command += ["run", "--config_file", f"[{files}]"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PROBE_DIR": str(folder), "PYTHONPATH": str(BUNDLE.parents[1])}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    result = subprocess.run(command, cwd=BUNDLE, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, the weights of each process after each epoch, and the trained model, by two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    # odd numbers, so that the processes cannot share the validation images equally
    make_phantom(folder / "data", size=32, num_training=16, num_unlabeled=0, num_validation=7, num_testing=13)
    _run(
        folder,
        processes=2,
        configs=["train", "multi_gpu_train"],
        output_dir=str(folder / "out"),
        max_epochs=EPOCHS,
        batch_size=4,
        val_interval=1,
        checkpoint_seconds=0,
        run=["$@train#trainer.run()"],
        **{"validate#handlers": []},
    )
    return folder


def _recorded(folder: Path, rank: int, epoch: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / f"rank{rank}_epoch{epoch}.pt", weights_only=True)
    return state


def test_processes_hold_the_same_network(trained: Path) -> None:
    for epoch in range(1, EPOCHS * MEMBERS + 1):
        first, second = _recorded(trained, 0, epoch), _recorded(trained, 1, epoch)
        assert [name for name in first if not torch.equal(first[name], second[name])] == [], epoch


def test_frozen_members_stay_as_they_are(trained: Path) -> None:
    for rank in range(2):
        for member in range(MEMBERS):
            states = [_recorded(trained, rank, epoch) for epoch in range(1, EPOCHS * MEMBERS + 1)]
            part = [{k: v for k, v in state.items() if k.startswith(f"members.{member}.")} for state in states]
            finished = EPOCHS * (member + 1)
            for state in part[finished:]:
                assert all(torch.equal(value, part[finished - 1][name]) for name, value in state.items())
            # each epoch of its own turn moved it
            for before, after in zip(
                part[finished - EPOCHS : finished - 1], part[finished - EPOCHS + 1 : finished], strict=True
            ):
                assert not any(torch.equal(after[name], before[name]) for name in after)


def test_saved_model_is_the_one_that_was_trained(trained: Path) -> None:
    saved = torch.load(trained / "out" / "models" / "model.pt", weights_only=True)
    last = _recorded(trained, 1, EPOCHS * MEMBERS)
    assert {f"network.{name}" for name in last} == set(saved)
    assert all(torch.equal(saved[f"network.{name}"], value) for name, value in last.items())


def _evaluate(folder: Path, processes: int) -> tuple[dict[str, Any], list[str]]:
    output = folder / f"evaluated_by_{processes}"
    configs = ["train", "evaluate"] + (["multi_gpu_train"] if processes > 1 else [])
    _run(
        folder,
        processes,
        configs,
        output_dir=str(output),
        checkpoint=str(folder / "out" / "models" / "model.pt"),
        val_batch_size=3,
        run=["$@validate#evaluator.run()"],
    )
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return metrics, sorted((output / "scores.csv").read_text(encoding="utf-8").splitlines())


def test_one_and_two_processes_evaluate_alike(trained: Path) -> None:
    alone, scores_alone = _evaluate(trained, 1)
    together, scores_together = _evaluate(trained, 2)
    assert len(scores_alone) == 14 and scores_together == scores_alone
    assert together["metrics"].keys() == alone["metrics"].keys()
    for name, figure in alone["metrics"].items():
        for bound in ("value", "low", "high"):
            assert together["metrics"][name][bound] == pytest.approx(figure[bound], abs=1e-6), (name, bound)
    assert together["counts"] == alone["counts"]


# those whose training differs from another's in the network or the loss alone are left out: each takes half a minute
ALIKE = {"aeu", "d2ue_ae", "d2ue_memae", "dae", "memae", "restorer"}


@pytest.mark.parametrize("name", sorted({*recipe_names()} - ALIKE))
def test_two_processes_train_and_evaluate_every_kind_of_bundle(name: str, tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", size=32, num_training=16, num_unlabeled=6, num_validation=5, num_testing=7)
    data = {"dataset_dir": str(tmp_path / "data"), "spatial_size": [16, 16], "latent_channels": 4, "hidden_channels": 8}
    data |= {"channels": [8, 8], "attention_levels": [False, True], "num_steps": 2}
    data |= SMALL_FIT
    data |= {"hidden_size": 24, "num_layers": 1, "num_heads": 2, "variants": 2}
    data |= {"decoder_hidden_size": 24, "decoder_num_layers": 1, "decoder_num_heads": 2, "pseudo_labels": None}
    data |= {"audit#unlabeled": "ignored"}  # generated images are alike, which the audit would take for copies
    settings = {"max_epochs": 1, "batch_size": 4, "val_interval": 1, "output_dir": str(tmp_path / "out")}
    config = json.loads((BUNDLE.with_name(name) / "configs/train.json").read_text(encoding="utf-8"))
    if config.get("foreground") == "lungs":  # generated images have none
        settings["foreground"] = "whole_image"
    if "num_normal" in config:
        settings["score"] = "rec"  # for which the one network that is trained here is enough
    (tmp_path / "small.json").write_text(json.dumps(data | settings), encoding="utf-8")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(BUNDLE.parents[1]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    steps: list[tuple[list[str], list[str]]] = [([], []), (["evaluate"], [])]
    if "pseudo_labels" in config:  # two modules, neither of which says anything by itself
        steps.insert(1, ([], ["--fold", "1"]))
    for overlay, options in steps:
        files = [f"configs/{config}.json" for config in ("train", *overlay, "multi_gpu_train")]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command += ["-m", "monai.bundle", "run", "--config_file", str([*files, str(tmp_path / "small.json")]), *options]
        folder = BUNDLE.with_name(name)
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-4000:]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["counts"]["images"] == 7 and metrics["settings"]["training"]["total_epochs"] >= 1
    assert (tmp_path / "out" / "audit.json").is_file() and (tmp_path / "out" / "report.html").is_file()
