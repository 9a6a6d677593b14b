# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_anomaly.handlers import WeightAverage

PUBLISHED = [0.0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))


def _weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).double()


def _engine(network: nn.Module, seen: list[Tensor]) -> Engine:
    """Changes the weights at each iteration, by nothing that an average knows of."""
    generator = torch.Generator().manual_seed(3)

    def step(engine: Engine, batch: object) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        seen.append(_weights(network))

    return Engine(step)


def _averaged(weights: list[Tensor], largest: float = 1.0) -> Tensor:
    """The first weights, then of each a share of the average so far and the rest new."""
    average = torch.zeros_like(weights[0])
    for n, new in enumerate(weights):
        kept = 0.0 if n == 0 else min(largest, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * new
    return average


def test_shares_are_the_published_ones() -> None:
    network, seen = nn.Linear(1, 1, bias=False), list[Tensor]()
    average = WeightAverage(network)
    engine = _engine(network, seen)
    average.attach(engine)
    before = float(_weights(average.module))
    for expected in PUBLISHED:
        engine.run([0])
        after, new = float(_weights(average.module)), float(seen[-1])
        assert (after - new) / (before - new) == pytest.approx(expected, abs=1e-5)
        before = after


def test_average_of_a_run_from_the_recurrence() -> None:
    network, seen = _network(), list[Tensor]()
    average = WeightAverage(network)
    engine = _engine(network, seen)
    average.attach(engine)
    engine.run(range(7), max_epochs=3)
    assert len(seen) == 21
    torch.testing.assert_close(_weights(average.module), _averaged(seen), rtol=1e-4, atol=1e-5)
    assert torch.equal(_weights(network), seen[-1]), "the network that is trained stays as it is"
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


@pytest.mark.parametrize("largest", [0.0, 0.2])
def test_share_stays_below_the_largest(largest: float) -> None:
    network, seen = _network(), list[Tensor]()
    average = WeightAverage(network, decay=largest)
    engine = _engine(network, seen)
    average.attach(engine)
    engine.run(range(6))
    torch.testing.assert_close(_weights(average.module), _averaged(seen, largest), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("updates", "kept"), [(89_980, 89_981 / 89_990), (89_990, 0.9999), (500_000, 0.9999)])
def test_share_reaches_the_largest_at_the_published_update(updates: int, kept: float) -> None:
    network = nn.Linear(1, 1, bias=False).double()
    average = WeightAverage(network)
    state = average.state_dict()
    for value in state.values():
        value.copy_(torch.tensor(updates)) if value.ndim == 0 else value.fill_(1.0)
    average.load_state_dict(state)
    with torch.no_grad():
        network.weight.zero_()
    engine = Engine(lambda engine, batch: None)
    average.attach(engine)
    engine.run([0])
    assert float(average.module.weight) == pytest.approx(kept, abs=1e-9) and kept <= 0.9999


@pytest.mark.parametrize(("every", "length"), [(1, 4), (2, 4), (3, 4), (3, 7), (5, 4)])
def test_one_update_for_each_step_of_the_optimizer(every: int, length: int) -> None:
    network, seen = _network(), list[Tensor]()
    average = WeightAverage(network, every=every)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=[
            {"image": image, "label": image} for image in torch.randn(length, 2, 1, 8, 8, generator=torch.Generator())
        ],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.05),
        loss_function=nn.MSELoss(),
        decollate=False,
        accumulation_steps=every,
        train_handlers=[average],
    )
    last = _weights(network)

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine: Engine) -> None:
        nonlocal last
        if not torch.equal(_weights(network), last):  # MONAI has made a step
            last = _weights(network)
            seen.append(last)

    trainer.run()
    assert len(seen) == 3 * -(-length // every)
    torch.testing.assert_close(_weights(average.module), _averaged(seen), rtol=1e-4, atol=1e-6)
    assert int(average.state_dict()["n_averaged"]) == len(seen)


def test_statistics_of_the_batches_are_those_of_the_network() -> None:
    network = _network()
    average = WeightAverage(network)
    engine = Engine(lambda engine, batch: network.train()(batch))
    average.attach(engine)
    engine.run([torch.randn(4, 1, 8, 8) + 5 for _ in range(3)])
    for name, buffer in network.named_buffers():
        assert torch.equal(average.module.get_buffer(name), buffer)
    assert int(average.module[1].num_batches_tracked) == 3


def test_a_resumed_average_goes_on_where_it_was(tmp_path: Path) -> None:
    network, seen = _network(), list[Tensor]()
    average = WeightAverage(network)
    engine = _engine(network, seen)
    average.attach(engine)
    engine.run(range(4))
    torch.save(average.state_dict(), tmp_path / "average.pt")
    other = WeightAverage(network)
    other.load_state_dict(torch.load(tmp_path / "average.pt", weights_only=True))
    other.attach(engine)
    engine.run(range(4))
    assert torch.equal(_weights(other.module), _weights(average.module))
    torch.testing.assert_close(_weights(other.module), _averaged(seen), rtol=1e-4, atol=1e-5)


def test_network_wrapped_for_distributed_training(tmp_path: Path) -> None:
    network, seen = _network(), list[Tensor]()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        average = WeightAverage(DistributedDataParallel(network))
        engine = _engine(network, seen)
        average.attach(engine)
        engine.run(range(3))
    finally:
        dist.destroy_process_group()
    assert average.module.state_dict().keys() == network.state_dict().keys()
    torch.testing.assert_close(_weights(average.module), _averaged(seen), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"decay": 1.0}, {"decay": -0.1}, {"every": 0}])
def test_wrong_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match=r"decay must be in \[0, 1\) and every at least 1, got (1.0|-0.1|0.9999 and 0)"
    ):
        WeightAverage(nn.Linear(1, 1), **arguments)
