# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import (
    Compose,
    Lambdad,
    OneOf,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityd,
    ToTensord,
    Transform,
)
from torch.utils.data import DistributedSampler

from monai_anomaly.data import AnomalyDataset, EpochSampler

NUMBER = 11


class MakeImage(Transform):
    """Make an image from the number in the sample, and count how often."""

    calls = 0

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        type(self).calls += 1
        return {**data, "image": MetaTensor(torch.arange(6.0).reshape(1, 2, 3) + 10 * data["image"])}


def items(number: int = NUMBER) -> list[dict[str, int]]:
    return [{"image": i} for i in range(number)]


def noisy(seed: int = 0, **settings: Any) -> AnomalyDataset:
    random = [RandFlipd("image", prob=0.5, spatial_axis=1), RandGaussianNoised("image", prob=0.9)]
    return AnomalyDataset(items(), MakeImage(), random, seed, progress=False, **settings)


def epoch_of(
    dataset: AnomalyDataset, epoch: int, workers: int = 0, **settings: Any
) -> list[tuple[list[int], torch.Tensor]]:
    sampler = EpochSampler(dataset, seed=3, **settings)
    sampler.set_epoch(epoch)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers)
    return [(batch["index"].tolist(), batch["image"].as_tensor()) for batch in loader]


def assert_same(a: list[tuple[list[int], torch.Tensor]], b: list[tuple[list[int], torch.Tensor]]) -> None:
    assert [x[0] for x in a] == [x[0] for x in b]
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x[1], y[1])


def test_deterministic_part_runs_once_and_stays_untouched() -> None:
    MakeImage.calls = 0
    dataset = AnomalyDataset(items(), MakeImage(), progress=False)
    assert MakeImage.calls == NUMBER and len(dataset) == NUMBER and not dataset.is_random
    for _ in range(2):
        for index, sample in enumerate(dataset):
            assert sample["index"] == index
            assert torch.equal(sample["image"].as_tensor(), torch.arange(6.0).reshape(1, 2, 3) + 10 * index)
            sample["image"] += 1  # whoever changes a sample must not change the cache
            sample["image"].applied_operations.append({"class": "x"})
    assert not dataset[0]["image"].applied_operations
    assert MakeImage.calls == NUMBER


def test_partial_cache() -> None:
    MakeImage.calls = 0
    dataset = AnomalyDataset(items(), [MakeImage()], cache_num=4, num_workers=2, progress=False)
    assert MakeImage.calls == 4
    assert [float(s["image"].max()) for s in dataset] == [5.0 + 10 * i for i in range(NUMBER)]
    assert MakeImage.calls == NUMBER
    assert_same(epoch_of(noisy(cache_num=3), 2), epoch_of(noisy(), 2))


def test_random_part_is_fixed_by_seed_epoch_and_index() -> None:
    dataset = noisy(seed=5)
    assert dataset.is_random
    for epoch, index in ((0, 0), (0, 3), (2, 3)):
        transform = Compose([RandFlipd("image", prob=0.5, spatial_axis=1), RandGaussianNoised("image", prob=0.9)])
        transform.set_random_state(int(np.random.SeedSequence([5, epoch, index]).generate_state(1)[0]))
        expected = transform(MakeImage()({"image": index}))["image"].as_tensor()
        dataset[7]  # what was drawn before does not matter
        assert torch.equal(dataset[epoch * NUMBER + index]["image"].as_tensor(), expected)
        assert dataset[epoch * NUMBER + index]["index"] == index
    assert not torch.equal(noisy(seed=6)[3]["image"].as_tensor(), dataset[3]["image"].as_tensor())
    assert torch.equal(dataset[-1]["image"].as_tensor(), dataset[NUMBER - 1]["image"].as_tensor())
    with pytest.raises(IndexError, match="index -12 is out of range for 11 items"):
        dataset[-12]


@pytest.mark.parametrize("workers", [0, 2])
def test_fixed_draws_the_same_in_every_epoch(workers: int) -> None:
    fixed, free = noisy(seed=5, fixed=True), noisy(seed=5)
    first = epoch_of(fixed, 0, workers, shuffle=False)
    assert_same(first, epoch_of(free, 0, shuffle=False))
    for epoch in (1, 7):
        assert_same(first, epoch_of(fixed, epoch, workers, shuffle=False))
    assert [fixed[4 * NUMBER + i]["index"] for i in range(NUMBER)] == list(range(NUMBER))
    images = [sample["image"].as_tensor() for sample in fixed]
    assert not torch.equal(images[0] - images[0].mean(), images[1] - images[1].mean()), "each sample draws its own"
    assert not torch.equal(noisy(seed=6, fixed=True)[0]["image"].as_tensor(), images[0])


def test_fixed_samples_may_be_kept_and_are_given_anew_each_time() -> None:
    assert not noisy(fixed=True).is_random and noisy().is_random
    dataset = noisy(fixed=True)
    sample = dataset[3]["image"]
    expected = sample.as_tensor().clone()
    sample += 1  # whoever changes a sample does not change the next epoch's
    assert torch.equal(dataset[NUMBER + 3]["image"].as_tensor(), expected)


def test_batches_do_not_depend_on_workers() -> None:
    assert_same(epoch_of(noisy(), 4, workers=0), epoch_of(noisy(), 4, workers=2))


def test_epochs_differ_in_order_and_in_draws() -> None:
    dataset = noisy()
    first, second = epoch_of(dataset, 0), epoch_of(dataset, 1)
    assert [x[0] for x in first] != [x[0] for x in second]
    images = [
        dict(zip([i for x in e for i in x[0]], torch.cat([x[1] for x in e]), strict=True)) for e in (first, second)
    ]
    assert sorted(images[0]) == list(range(NUMBER))
    assert all(not torch.equal(images[0][i], images[1][i]) for i in range(NUMBER))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_engine_sees_the_same_batches(workers: int) -> None:
    def run(start: int, stop: int) -> list[tuple[int, list[int], torch.Tensor]]:
        dataset, seen = noisy(), []
        loader = DataLoader(dataset, batch_size=4, sampler=EpochSampler(dataset), num_workers=workers)

        def step(engine: Any, batch: Any) -> dict[str, Any]:
            seen.append((engine.state.epoch, batch["index"].tolist(), batch["image"].as_tensor()))
            return {}

        network = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        trainer = SupervisedTrainer(
            torch.device("cpu"),
            stop,
            loader,
            network,
            optimizer,
            torch.nn.MSELoss(),
            iteration_update=step,
            decollate=False,
        )
        trainer.state.epoch, trainer.state.iteration = start, start * len(loader)
        trainer.run()
        return seen

    unbroken, resumed = run(0, 3), run(2, 3)
    tail = [x for x in unbroken if x[0] == 3]
    assert len(unbroken) == 9 and len(tail) == len(resumed) == 3
    for a, b in zip(tail, resumed, strict=True):
        assert a[:2] == b[:2] and torch.equal(a[2], b[2])


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_evaluation_gives_each_sample_once(replicas: int) -> None:
    dataset = AnomalyDataset(items(), MakeImage(), progress=False)
    samplers = [EpochSampler(dataset, False, num_replicas=replicas, rank=rank) for rank in range(replicas)]
    for sampler in samplers:
        sampler.set_epoch(1)
    keys = [list(sampler) for sampler in samplers]
    assert [len(k) for k in keys] == [len(sampler) for sampler in samplers]
    assert sorted(key - NUMBER for part in keys for key in part) == list(range(NUMBER))
    assert max(map(len, keys)) - min(map(len, keys)) <= 1


def test_more_processes_than_samples() -> None:
    dataset = AnomalyDataset(items(1), MakeImage(), progress=False)
    samplers = [EpochSampler(dataset, False, num_replicas=3, rank=rank) for rank in range(3)]
    assert [list(s) for s in samplers] == [[0], [], []] and [len(s) for s in samplers] == [1, 0, 0]


@pytest.mark.parametrize("replicas", [2, 3])
def test_training_gives_equal_counts_and_every_sample(replicas: int) -> None:
    dataset = AnomalyDataset(items(), MakeImage(), progress=False)
    keys = []
    for rank in range(replicas):
        sampler = EpochSampler(dataset, num_replicas=replicas, rank=rank, seed=9)
        sampler.set_epoch(5)
        keys.append(list(sampler))
        assert len(sampler) == len(keys[-1]) == -(-NUMBER // replicas)
    assert {divmod(key, NUMBER)[0] for part in keys for key in part} == {5}
    assert {key % NUMBER for part in keys for key in part} == set(range(NUMBER))


def test_processes_are_taken_from_ignite(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnomalyDataset(items(), MakeImage(), progress=False)
    alone = EpochSampler(dataset)
    assert isinstance(alone, DistributedSampler) and (alone.num_replicas, alone.rank) == (1, 0)
    monkeypatch.setattr(idist, "get_world_size", lambda: 4)
    monkeypatch.setattr(idist, "get_rank", lambda: 2)
    assert list(EpochSampler(dataset, shuffle=False)) == [2, 6, 10]


def test_is_random_looks_for_what_draws() -> None:
    def dataset(*transforms: Any) -> AnomalyDataset:
        return AnomalyDataset(items(2), MakeImage(), transforms, progress=False)

    assert not dataset().is_random
    assert not dataset(ScaleIntensityd("image"), Compose([ToTensord("image")])).is_random
    assert dataset(ScaleIntensityd("image"), Compose([RandFlipd("image")])).is_random
    assert dataset(OneOf([ScaleIntensityd("image"), ToTensord("image")])).is_random
    assert dataset(lambda x: x).is_random  # nothing is known of it
    assert not dataset(Lambdad("image", lambda x: x + 1)).is_random


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="data holds no item"):
        AnomalyDataset([], MakeImage())
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        AnomalyDataset(items(), MakeImage(), seed=-1)
    with pytest.raises(ValueError, match=r"must not be random, got \['RandFlipd'\]: give these as random_transform"):
        AnomalyDataset(items(), Compose([MakeImage(), RandFlipd("image")]))
    with pytest.raises(ValueError, match=r"dataset must be an EpochDataset.*got list"):
        EpochSampler([1, 2])  # type: ignore[arg-type]


if sys.version_info >= (3, 12):  # a forked worker beside a progress bar's thread makes Python 3.12 warn
    pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
