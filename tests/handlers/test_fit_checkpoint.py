# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a fit; how it goes on after a kill is tested with its trainer, tests/engines/test_fit_trainer.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.transforms import EnsureTyped
from torch import nn
from torch.utils.data import DataLoader

from monai_anomaly.data import AnomalyDataset, EpochSampler
from monai_anomaly.engines import FitTrainer
from monai_anomaly.handlers import FitCheckpoint
from monai_anomaly.networks.blocks import FeatureExtractor, PlaceMemory
from monai_anomaly.networks.maps import DensityMap
from monai_anomaly.utils import read_settings

IMAGES = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def fit(folder: Path, seconds: float = 0, sha256: str = "12ab", processes: int = 1) -> tuple[DensityMap, FitCheckpoint]:
    torch.manual_seed(0)
    extractor = FeatureExtractor(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), ["0"], mean=[0.5] * 3, std=[0.5] * 3)
    extractor.source = {"name": "tiny", "sha256": sha256}
    network = DensityMap(extractor, PlaceMemory(size=3, window=1, projected=None), grid=[4, 4])
    checkpoint = FitCheckpoint(folder, network, {"seed": 1}, min_seconds=seconds)
    checkpoint.settings["processes"] = processes
    dataset = AnomalyDataset([{"image": image} for image in IMAGES], EnsureTyped("image"), progress=False)
    loader = DataLoader(dataset, 2, sampler=EpochSampler(dataset, shuffle=False))
    FitTrainer(torch.device("cpu"), loader, network, train_handlers=[checkpoint]).run()
    return network, checkpoint


def test_the_result_has_its_settings_and_the_hash_of_the_backbone_inside(tmp_path: Path) -> None:
    network, _ = fit(tmp_path)
    settings = read_settings(tmp_path / "model.pt")
    assert settings["seed"] == 1 and settings["processes"] == 1 and settings["backbone_sha256"] == "12ab"
    assert settings["total_epochs"] == 1 and settings["epoch_length"] == 4
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in network.state_dict().items())
    assert not (tmp_path / "model_best.pt").exists() and (tmp_path / "training.json").is_file()


@pytest.mark.parametrize(("seconds", "written"), [(0, 4), (1e9, 1)])
def test_a_checkpoint_comes_after_some_time_and_after_the_last_batch(
    seconds: float, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = []
    original = FitCheckpoint.save
    monkeypatch.setattr(FitCheckpoint, "save", lambda *args: (saves.append(args), original(*args)))
    fit(tmp_path, seconds)
    assert len(saves) == written
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    # of the images that were seen, before the fit is ended
    assert stored["trainer"]["iteration"] == 4 and int(stored["network"]["head.num_images"]) == 7
    assert not bool(stored["network"]["head.finished"]) and stored["optimizer"] is None


@pytest.mark.parametrize(
    ("other", "told"),
    [({"sha256": "34cd"}, "backbone_sha256: 12ab -> 34cd"), ({"processes": 2}, "processes: 1 -> 2")],
)
def test_another_backbone_or_number_of_processes_is_another_run(other: dict, told: str, tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(ValueError, match=told):
        fit(tmp_path, **other)
