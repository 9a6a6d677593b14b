# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Engine, Events
from monai.transforms import EnsureTyped
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_anomaly.data import AnomalyDataset, EpochSampler
from monai_anomaly.engines import FitTrainer
from monai_anomaly.engines.fit_trainer import gather_states
from monai_anomaly.handlers import EpochProgress, FitCheckpoint, ListedLoss
from monai_anomaly.utils import release_folder

IMAGES = torch.randn(11, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 50.0


class Interrupted(Exception):
    """Stands for a kill."""


class Moments(nn.Module):
    """Count, sum and squares of every pixel, and after the fit mean and variance; also all that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        for name, size in (("count", ()), ("total", (1, 4, 4)), ("squares", (1, 4, 4)), ("mean", (1, 4, 4))):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("finished", torch.tensor(False))
        self.shown: list[float] = []

    def fit_batch(self, image: Tensor) -> None:
        assert not torch.is_grad_enabled()
        self.count += len(image)
        self.total += image.double().sum(0)
        self.squares += image.double().square().sum(0)
        self.shown += image.flatten(1)[:, 0].tolist()

    def merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        for name in ("count", "total", "squares"):
            getattr(self, name).copy_(torch.stack([state[name] for state in states]).sum(0))

    def finish(self) -> None:
        self.mean = self.total / self.count
        self.finished.fill_(True)


def trainer_of(network: nn.Module, folder: Path | None = None, **arguments: Any) -> FitTrainer:
    dataset = AnomalyDataset([{"image": i} for i in IMAGES], EnsureTyped("image", track_meta=False), progress=False)
    loader = DataLoader(dataset, 3, sampler=EpochSampler(dataset, shuffle=False))
    handlers: list[Any] = [ListedLoss(), EpochProgress("fit", "batch")]
    if folder is not None:
        handlers.append(FitCheckpoint(folder, network, {"seed": 0}, min_seconds=0))
    return FitTrainer(torch.device("cpu"), loader, network, train_handlers=handlers, **arguments)


def test_every_image_is_shown_once_in_order_and_the_fit_is_ended() -> None:
    network = Moments()
    trainer = trainer_of(network)
    ends = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: ends.append(bool(network.finished)))
    trainer.run()
    assert network.shown == IMAGES.flatten(1)[:, 0].tolist() and ends == [True]
    np.testing.assert_allclose(network.mean, IMAGES.double().numpy().mean(0), rtol=1e-12)
    assert network.weight.grad is None and float(trainer.state.output[0]["loss"]) == 0


def test_several_passes_end_once() -> None:
    network = Moments()
    trainer_of(network, max_epochs=2).run()
    assert len(network.shown) == 22 and float(network.count) == 22
    np.testing.assert_allclose(network.mean, IMAGES.double().numpy().mean(0), rtol=1e-12)


@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_a_killed_fit_goes_on_to_equal_statistics(killed_after: int, tmp_path: Path) -> None:
    expected = Moments()
    trainer_of(expected, tmp_path / "unbroken").run()

    def kill(engine: Engine) -> None:
        raise Interrupted

    broken = trainer_of(Moments(), tmp_path / "broken")
    broken.add_event_handler(Events.ITERATION_COMPLETED(once=killed_after), kill)
    with pytest.raises(Interrupted):
        broken.run()
    release_folder(tmp_path / "broken")
    network = Moments()
    trainer_of(network, tmp_path / "broken").run()
    assert network.shown == IMAGES[3 * killed_after :].flatten(1)[:, 0].tolist()
    before, after = (torch.load(tmp_path / run / "model.pt", weights_only=True) for run in ("unbroken", "broken"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_complete_fit_started_again_shows_nothing_and_stays_as_it_is(tmp_path: Path) -> None:
    trainer_of(Moments(), tmp_path).run()
    before = torch.load(tmp_path / "model.pt", weights_only=True)
    network = Moments()
    trainer_of(network, tmp_path).run()
    assert network.shown == [] and bool(network.finished)
    after = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_setting_or_a_network_that_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Linear lacks fit_batch, merge, finish"):
        trainer_of(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="max_epochs must be at least 1"):
        trainer_of(Moments(), max_epochs=0)
    trainer_of(Moments(), tmp_path).run()
    with pytest.raises(ValueError, match="total_epochs: 1 -> 2"):
        trainer_of(Moments(), tmp_path, max_epochs=2).run()


def test_a_loader_that_cannot_leave_batches_out_is_refused() -> None:
    trainer = FitTrainer(torch.device("cpu"), DataLoader(IMAGES, 3), Moments(), prepare_batch=lambda b, *_: (b, b))
    trainer.load_state_dict({"iteration": 2, "epoch_length": 4, "max_epochs": 1})
    with pytest.raises(ValueError, match="after 2 batches"):
        trainer.run()


def _fit_a_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(days=1))
    network = Moments()
    trainer_of(network, Path(folder)).run()
    torch.save({"state": network.state_dict(), "shown": network.shown}, f"{folder}/rank{rank}.pt")
    own = {"half": torch.full((rank, 2), 1.5).half(), "flag": torch.tensor(rank == 1), "none": torch.zeros(0, 3)}
    parts = gather_states(own)
    assert [part["half"].tolist() for part in parts] == [[], [[1.5, 1.5]]] and parts[1]["half"].dtype == torch.half
    assert [bool(part["flag"]) for part in parts] == [False, True] and parts[0]["none"].shape == (0, 3)
    dist.destroy_process_group()


def test_two_processes_fit_what_one_does(tmp_path: Path) -> None:
    mp.spawn(_fit_a_share, (str(tmp_path),), nprocs=2)
    alone = Moments()
    trainer_of(alone).run()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert sorted(ranks[0]["shown"] + ranks[1]["shown"]) == sorted(alone.shown) and len(ranks[1]["shown"]) == 5
    for rank in ranks:
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(rank["state"][name], value, rtol=1e-12, atol=0)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in ranks[0]["state"].items())
    shares = [torch.load(tmp_path / name, weights_only=True) for name in ("checkpoint.pt", "checkpoint_1.pt")]
    assert [float(share["network"]["count"]) for share in shares] == [6, 5]
