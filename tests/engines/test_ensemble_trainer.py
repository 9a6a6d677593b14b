# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.transforms import EnsureTyped, RandGaussianNoised
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_anomaly.data import AnomalyDataset, EpochSampler
from monai_anomaly.engines import EnsembleTrainer
from monai_anomaly.functional import cka
from monai_anomaly.losses import ReconstructionLoss, RepulsionLoss
from monai_anomaly.networks.blocks import NetworkEnsemble
from monai_anomaly.networks.nets import DenseAutoencoder

IMAGES = torch.randn(14, 1, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(-1) / 4
BATCH, WEIGHT, RATE = 4, 2.0, 2e-2
make_member = partial(DenseAutoencoder, 2, 1, 16, (3, 3, 4, 4), 6, 4)


def _dataset(random: bool = False) -> AnomalyDataset:
    items = [{"image": image} for image in IMAGES]
    noise = RandGaussianNoised("image", prob=1.0, std=0.05) if random else None
    return AnomalyDataset(items, EnsureTyped("image", track_meta=False), noise, progress=False)


def _loader(dataset: AnomalyDataset) -> DataLoader:
    return DataLoader(dataset, BATCH, sampler=EpochSampler(dataset, seed=1), drop_last=True)


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """With a state, and steps of the gradients' size.

    Adam's have one size: where batch normalization takes a bias away, and with it all gradient but the rounding, it
    would make full steps of the rounding, which is another one on another processor.
    """
    return torch.optim.SGD(network.parameters(), RATE, momentum=0.5)


def _trainer(
    max_epochs: int = 6,
    num_members: int = 3,
    member: Callable[[], nn.Module] = make_member,
    random: bool = False,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] = _optimizer,
    **arguments: Any,
) -> EnsembleTrainer:
    ensemble = NetworkEnsemble(member, num_members, seed=2)
    return EnsembleTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=_loader(_dataset(random)),
        network=ensemble,
        optimizer=make_optimizer(ensemble),
        loss_function=RepulsionLoss(ReconstructionLoss(), weight=WEIGHT),
        **arguments,
    )


def _state(network: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(network.state_dict())


def _assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 0.0) -> None:
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(
            mine[name], theirs[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def slow_training(epochs_of_members: list[list[int]], random: bool = False) -> list[nn.Module]:
    """Each member in a run of its own: fresh momentum, the earlier ones frozen and run on every batch."""
    untrained = NetworkEnsemble(make_member, len(epochs_of_members), seed=2)
    dataset, seniors = _dataset(random), []
    sampler = EpochSampler(dataset, seed=1)
    for learner, epochs in zip(untrained.members, epochs_of_members, strict=True):
        optimizer = _optimizer(learner)
        learner.train()
        for epoch in epochs:
            sampler.set_epoch(epoch)
            order = list(sampler)
            for start in range(0, len(order) - BATCH + 1, BATCH):
                image = torch.stack([dataset[key]["image"] for key in order[start : start + BATCH]])
                output = learner(image)
                loss = (output.reconstruction - image).square().mean()
                if seniors:
                    with torch.no_grad():
                        features = [senior(image).features for senior in seniors]
                    loss = loss + WEIGHT * sum(cka(p, output.features) for p in features) / len(features)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        seniors.append(learner.eval().requires_grad_(False))
    return seniors


@pytest.mark.parametrize("random", [False, True])
def test_one_run_equals_a_run_for_each_member(random: bool) -> None:
    trainer = _trainer(random=random)
    trainer.run()
    expected = slow_training([[1, 2], [3, 4], [5, 6]], random)
    for mine, theirs in zip(trainer.ensemble.members, expected, strict=True):
        _assert_same(mine.state_dict(), theirs.state_dict(), atol=1e-6)
    assert int(trainer.ensemble.num_active) == 3


def test_repulsion_changes_later_members_only() -> None:
    with_repulsion, without = _trainer(), _trainer()
    without.loss_function.weight = 0.0
    with_repulsion.run(), without.run()
    equal = [
        all(torch.equal(a, b) for a, b in zip(p.state_dict().values(), q.state_dict().values(), strict=True))
        for p, q in zip(with_repulsion.ensemble.members, without.ensemble.members, strict=True)
    ]
    assert equal == [True, False, False]


def test_epochs_that_members_cannot_share_equally() -> None:
    """Epoch e of 7, counted from 0, trains member floor(3 e / 7)."""
    trainer = _trainer(max_epochs=7)
    trained: list[int] = []
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: trained.append(int(engine.ensemble.num_active) - 1)
    )
    trainer.run()
    assert trained == [trainer.member_of_epoch(epoch) for epoch in range(1, 8)] == [0, 0, 0, 1, 1, 2, 2]
    expected = slow_training([[1, 2, 3], [4, 5], [6, 7]])
    for mine, theirs in zip(trainer.ensemble.members, expected, strict=True):
        _assert_same(mine.state_dict(), theirs.state_dict(), atol=1e-6)


@pytest.mark.parametrize("cache_features", [True, False])
def test_frozen_members_and_their_optimizer_state(cache_features: bool) -> None:
    def adam(network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), 2e-3)  # moves whatever has a gradient, be it rounding

    trainer = _trainer(cache_features=cache_features, make_optimizer=adam)
    states: list[list[dict[str, Tensor]]] = []
    held: list[list[int]] = []

    def record(engine: EnsembleTrainer) -> None:
        states.append([_state(member) for member in engine.ensemble.members])
        moments = [
            {id(p) for p in m.parameters()} & {id(p) for p in engine.optimizer.state} for m in engine.ensemble.members
        ]
        held.append([len(m) for m in moments])
        for index, member in enumerate(engine.ensemble.members):
            learns = index == int(engine.ensemble.num_active) - 1
            assert all((p.grad is not None) == learns for p in member.parameters())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, record)
    trainer.run()
    assert len(states) == 6 * 3
    parameters = len(list(make_member().parameters()))
    for iteration in range(1, len(states)):
        learner = iteration // 6
        for index in range(3):
            before, after = states[iteration - 1][index], states[iteration][index]
            moved = [name for name in before if not torch.equal(before[name], after[name])]
            # parameters, running means and numbers of batches: all of the one that learns, nothing of the others
            assert len(moved) == (0 if index != learner else len(before)), (iteration, index, moved)
        assert held[iteration] == [parameters if index == learner else 0 for index in range(3)]


def test_cached_features_are_those_of_each_batch() -> None:
    cached, fresh = _trainer(cache_features=True), _trainer(cache_features=False)
    seen: list[Tensor | None] = []
    for trainer in (cached, fresh):
        prepare = trainer.prepare_batch

        def spy(*args: Any, prepare: Callable[..., Any] = prepare, **kwargs: Any) -> Any:
            result = prepare(*args, **kwargs)
            seen.append(result[3]["senior_features"])
            return result

        trainer.prepare_batch = spy
        trainer.run()
    assert [None if f is None else f.shape for f in seen] == [None] * 6 + [(1, 4, 4)] * 6 + [(2, 4, 4)] * 6 + [
        None
    ] * 18
    _assert_same(_state(cached.ensemble), _state(fresh.ensemble), atol=1e-5)


def test_random_images_turn_the_cache_off() -> None:
    assert _trainer().cache_features is True
    assert _trainer(random=True).cache_features is False
    assert _trainer(random=True, cache_features=True).cache_features is True
    ensemble = NetworkEnsemble(make_member, 2)
    stream = EnsembleTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=[{"image": IMAGES[:4]}, {"image": IMAGES[4:8]}],
        network=ensemble,
        optimizer=torch.optim.Adam(ensemble.parameters()),
        loss_function=RepulsionLoss(ReconstructionLoss()),
    )
    assert stream.cache_features is False
    stream.run()
    assert int(ensemble.num_active) == 2


def test_computing_the_features_draws_nothing() -> None:
    """Else a run resumed in the middle of a member's turn, which computes them anew, would draw other numbers."""
    trainer = _trainer(max_epochs=3)
    trainer.ensemble.activate(1)
    before = torch.random.get_rng_state()
    features = trainer._features_of_dataset()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(features[0], trainer.ensemble.members[0].eval()(IMAGES).features.detach())


def test_the_network_feature_layer_is_what_repels() -> None:
    trainer = _trainer(member=partial(make_member, feature_layer="encoder4"))
    trainer.run()
    assert trainer.ensemble.members[0](IMAGES).features.shape == (14, 4, 1, 1)


def test_errors() -> None:
    with pytest.raises(ValueError, match="3 members need at least as many epochs, got 2"):
        _trainer(max_epochs=2)
    network = make_member()
    with pytest.raises(ValueError, match="trains a NetworkEnsemble, got DenseAutoencoder"):
        EnsembleTrainer(
            device=torch.device("cpu"),
            max_epochs=2,
            train_data_loader=_loader(_dataset()),
            network=network,
            optimizer=torch.optim.Adam(network.parameters()),
            loss_function=RepulsionLoss(ReconstructionLoss()),
        )
