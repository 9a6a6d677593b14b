# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The network and settings of the denoising autoencoder's paper, by one file for every command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_anomaly.data import make_phantom
from monai_anomaly.handlers import GradientClipper
from monai_anomaly.losses import ForegroundLoss
from monai_anomaly.networks.nets import DenoisingUNet

CONFIGS = Path(__file__).resolve().parents[2] / "bundles/dae/configs"


def workflow(files: list[str], **overrides: Any) -> ConfigWorkflow:
    return ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in files],
        workflow_type="inference" if files[0] == "inference" else "train",
        bundle_root=str(CONFIGS.parent),
        device="$torch.device('cpu')",
        **overrides,
    )


def run(files: list[str], **overrides: Any) -> ConfigWorkflow:
    started = workflow(files, **overrides)
    started.initialize()
    started.run()
    started.finalize()
    return started


def settings_of_a_run(tmp_path: Path) -> dict[str, Any]:
    datalist = make_phantom(tmp_path / "data", spatial_dims=2, size=40, seed=1)
    return {
        "datalist": str(datalist),
        "dataset_dir": str(tmp_path / "data"),
        "spatial_size": [16, 16],
        "channels": [8, 8],
    }


def parser_of_the_paper(**overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")])
    parser.update({"device": "cpu", **overrides})
    return parser


def test_all_of_it_is_that_of_the_paper() -> None:
    network = parser_of_the_paper(in_channels=3).get_parsed_content("network")
    assert isinstance(network, DenoisingUNet)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 7.70
    parser = parser_of_the_paper()
    optimizer = parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.Adam)
    assert {key: optimizer.defaults[key] for key in ("lr", "weight_decay", "amsgrad", "betas")} == {
        "lr": 1e-4,
        "weight_decay": 1e-5,
        "amsgrad": True,
        "betas": (0.9, 0.999),
    }
    assert isinstance(parser.get_parsed_content("loss"), ForegroundLoss)
    clipper, _ = parser.get_parsed_content("more_handlers")
    assert isinstance(clipper, GradientClipper) and clipper.max_norm == 0.5
    assert parser["batch_size"] == 16 and parser["spatial_size"] == [128, 128]
    loader = parser.get_parsed_content("train#dataloader")
    assert 0 <= parser.get_parsed_content("max_epochs") * len(loader) - 67200 <= len(loader)


def test_train_evaluate_and_infer_with_one_file(tmp_path: Path) -> None:
    data = settings_of_a_run(tmp_path)
    out = str(tmp_path / "run")
    settings = {"max_epochs": 3, "val_interval": 3, "batch_size": 8, "half_cycle": 4}
    trained = run(["train", "paper"], output_dir=out, **settings, **data)
    optimizer, trainer = (trained.parser.get_parsed_content(name) for name in ("optimizer", "train#trainer"))
    steps = trainer.state.iteration
    rate = 0.5e-4 * (1 + math.cos(math.pi * steps / 4))  # falls for four steps, rises for four
    assert steps > 4 and optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-6)
    run(["train", "paper", "evaluate"], output_dir=out, **data)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]
    assert 0 <= metrics["pixel_auroc"]["value"] <= 1
    run(["inference", "paper"], output_dir=str(tmp_path / "new"), checkpoint=f"{out}/models/model.pt", **data)
    assert (tmp_path / "new/scores.csv").read_text().count("\n") > 1


def test_a_resumed_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    data = settings_of_a_run(tmp_path)
    settings = {"max_epochs": 4, "val_interval": 4, "batch_size": 8, "half_cycle": 5, "checkpoint_seconds": 0.0}
    run(["train", "paper"], output_dir=str(tmp_path / "whole"), **settings, **data)
    broken = workflow(["train", "paper"], output_dir=str(tmp_path / "broken"), **settings, **data)
    broken.initialize()
    trainer = broken.parser.get_parsed_content("train#trainer")

    def kill(engine: Any) -> None:
        if engine.state.epoch == 3:
            raise RuntimeError("killed")

    trainer.add_event_handler(Events.EPOCH_STARTED, kill)
    with pytest.raises(RuntimeError):
        broken.run()
    run(["train", "paper"], output_dir=str(tmp_path / "broken"), **settings, **data)
    whole, resumed = (torch.load(tmp_path / name / "models/model.pt") for name in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
