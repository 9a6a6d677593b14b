# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from killed_runs import BUNDLE, Death, read_models, run_bundle, write_settings
from monai.engines import SupervisedTrainer
from monai.transforms import EnsureTyped
from processes import wait_until
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_anomaly.data import AnomalyDataset, EpochSampler
from monai_anomaly.engines import EnsembleTrainer, prepare_image_batch
from monai_anomaly.functional import manhattan_similarity
from monai_anomaly.handlers import TrainingCheckpoint, WeightAverage
from monai_anomaly.handlers.training_checkpoint import _describe
from monai_anomaly.losses import ReconstructionLoss, RepulsionLoss
from monai_anomaly.networks.blocks import AutoencoderOutput, NetworkEnsemble
from monai_anomaly.networks.nets import DenseAutoencoder

Models = dict[str, dict[str, Tensor]]


def _assert_same_models(mine: Models, theirs: Models) -> None:
    assert mine.keys() == theirs.keys()
    for file, state in theirs.items():
        assert mine[file].keys() == state.keys()
        assert [name for name in state if not torch.equal(mine[file][name], state[name])] == [], file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Models:
    """What a run of 3 members x 2 epochs x 2 iterations leaves that nobody disturbs."""
    assert run_bundle(write_settings(folder), folder / "unbroken") == 0
    return read_models(folder / "unbroken")


# each run goes on where the one before it died
CHAINS = {
    "while iterating": [
        Death("iteration", 1),  # before there is a checkpoint
        Death("iteration", 3),  # just after the first checkpoint
        Death("iteration", 7),  # in the middle of the second member
        Death("iteration", 12),  # after the last step
    ],
    "while validating": [Death("validation", 1), Death("validation", 2), Death("validation", 3)],
    "while writing": [
        Death("write", 1, "checkpoint"),
        Death("write", 3, "checkpoint"),
        Death("write", 1, "model_best"),
        Death("write", 1, "model"),
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_killed_and_started_again(chain: str, folder: Path, unbroken: Models) -> None:
    settings, output = write_settings(folder), folder / chain.replace(" ", "_")
    deaths = [run_bundle(settings, output, death) for death in CHAINS[chain]]
    # a network may have no best one left to write: then the run ends instead
    assert set(deaths) <= {-9, 0} and deaths.count(-9) >= 3, deaths
    assert run_bundle(settings, output) == 0
    _assert_same_models(read_models(output), unbroken)
    assert not list((output / "models").glob(".partial*")), "temporary files must be gone"


def test_finished_run_started_again_changes_nothing(folder: Path, unbroken: Models) -> None:
    before = (folder / "unbroken" / "models" / "checkpoint.pt").stat().st_size
    assert run_bundle(write_settings(folder), folder / "unbroken") == 0
    _assert_same_models(read_models(folder / "unbroken"), unbroken)
    assert (folder / "unbroken" / "models" / "checkpoint.pt").stat().st_size == before


@pytest.mark.slow
def test_command_line_killed_and_started_again(folder: Path, tmp_path: Path) -> None:
    settings = write_settings(folder, max_epochs=40, val_interval=10)
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", f"['configs/train.json','{settings}']"]
    command += ["--output_dir", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(BUNDLE.parents[1])}
    process = subprocess.Popen(
        command, cwd=BUNDLE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until((tmp_path / "killed" / "models" / "checkpoint.pt").exists, process)
    process.kill()
    # on a machine that is slow to come back to this test, the training may be over before it can be broken off
    assert process.wait() in (-9, 0)
    subprocess.run(
        command, cwd=BUNDLE, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert run_bundle(settings, tmp_path / "unbroken") == 0
    _assert_same_models(read_models(tmp_path / "killed"), read_models(tmp_path / "unbroken"))


class Dropped(nn.Module):
    """An autoencoder whose training depends on the random state."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU())
        self.decoder = nn.Linear(6, 16)

    def forward(self, image: Tensor) -> AutoencoderOutput:
        code = self.encoder(image.flatten(1))
        return AutoencoderOutput(self.decoder(code).reshape(image.shape), code, code)


class Interrupted(Exception):
    pass


def _trainer(
    folder: Path, max_epochs: int = 6, cache: bool = True, **settings: Any
) -> tuple[EnsembleTrainer, TrainingCheckpoint]:
    images = torch.randn(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    dataset = AnomalyDataset([{"image": i} for i in images], EnsureTyped("image", track_meta=False), progress=False)
    ensemble = NetworkEnsemble(Dropped, 3)
    optimizer = torch.optim.Adam(ensemble.parameters(), 0.01)
    checkpoint = TrainingCheckpoint(folder, ensemble, optimizer, settings, seed=5, min_seconds=0)
    trainer = EnsembleTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(dataset, 4, sampler=EpochSampler(dataset), drop_last=True),
        network=ensemble,
        optimizer=optimizer,
        loss_function=RepulsionLoss(ReconstructionLoss()),
        cache_features=cache,
        train_handlers=[checkpoint],
    )
    return trainer, checkpoint


def _interrupt(engine: Engine) -> None:
    raise Interrupted


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("iteration", [1, 3, 6, 7, 8, 11])
def test_random_state_is_that_of_an_unbroken_run(iteration: int, cache: bool, tmp_path: Path) -> None:
    unbroken, _ = _trainer(tmp_path / "unbroken", cache=cache)
    unbroken.run()
    broken, _ = _trainer(tmp_path / "broken", cache=cache)
    broken.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), _interrupt)
    with pytest.raises(Interrupted):
        broken.run()
    torch.manual_seed(123)  # the new process starts from any random state
    resumed, _ = _trainer(tmp_path / "broken", cache=cache)
    resumed.run()
    for (name, mine), theirs in zip(
        resumed.ensemble.state_dict().items(), unbroken.ensemble.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


def test_optimizer_state_of_finished_members_is_not_stored(tmp_path: Path) -> None:
    sizes = []
    trainer, _ = _trainer(tmp_path)

    def measure(engine: Engine) -> None:
        stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        sizes.append(len(stored["optimizer"]["state"]))

    trainer.add_event_handler(Events.EPOCH_STARTED(event_filter=lambda _, epoch: epoch > 1), measure)
    trainer.run()
    assert sizes == [len(list(Dropped().parameters()))] * 5


def test_other_settings_are_refused(tmp_path: Path) -> None:
    trainer, _ = _trainer(tmp_path, spatial_size=[4, 4], rate=0.01)
    trainer.run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    changed, _ = _trainer(tmp_path, spatial_size=[8, 4], rate=0.01)
    with pytest.raises(ValueError, match=r"spatial_size: \[4, 4\] -> \[8, 4\]") as error:
        changed.run()
    assert str(tmp_path / "checkpoint.pt") in str(error.value) and "rate" not in str(error.value)
    assert "another output_dir" in str(error.value)
    added, _ = _trainer(tmp_path, spatial_size=[4, 4], rate=0.01, repulsion=1.0)
    with pytest.raises(ValueError, match="repulsion: None -> 1.0"):
        added.run()
    # without any settings as well: which member an epoch trains depends on the number of epochs
    longer, _ = _trainer(tmp_path, max_epochs=9, spatial_size=[4, 4], rate=0.01)
    with pytest.raises(ValueError, match="total_epochs: 6 -> 9"):
        longer.run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def _scored(folder: Path, values: list[float], best: list[int], stop_after: int | None = None) -> TrainingCheckpoint:
    """Train a single network whose validation metric after each epoch is given."""
    network = Dropped()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    evaluator = Engine(lambda engine, batch: None)
    checkpoint = TrainingCheckpoint(folder, network, optimizer, min_seconds=0, evaluator=evaluator)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=len(values),
        train_data_loader=[{"image": torch.ones(4, 1, 4, 4)}],
        network=network,
        optimizer=optimizer,
        loss_function=ReconstructionLoss(),
        prepare_batch=prepare_image_batch,
        decollate=False,
        train_handlers=[checkpoint],
    )

    def validate(engine: Engine) -> None:
        evaluator.run([0])
        path = folder / "model_best.pt"
        if path.exists() and torch.equal(torch.load(path, weights_only=True)["decoder.weight"], network.decoder.weight):
            best.append(engine.state.epoch)
        if engine.state.epoch == stop_after:
            raise Interrupted

    @evaluator.on(Events.STARTED)
    def measure(engine: Engine) -> None:
        engine.state.metrics = {"image_auroc": values[trainer.state.epoch - 1]}

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    trainer.run()
    return checkpoint


def test_best_network_is_that_of_the_largest_defined_value(tmp_path: Path) -> None:
    best: list[int] = []
    checkpoint = _scored(tmp_path, [math.nan, 0.5, 0.4, math.nan, 0.5, 0.7, math.nan], best)
    assert best == [2, 6] and checkpoint.best == 0.7


def test_undefined_value_never_wins(tmp_path: Path) -> None:
    checkpoint = _scored(tmp_path, [math.nan, math.nan], [])
    assert not (tmp_path / "model_best.pt").exists() and checkpoint.best == -math.inf


def test_best_value_survives_an_interruption(tmp_path: Path) -> None:
    values = [0.5, 0.9, 0.6, 0.7, 0.8]
    with pytest.raises(Interrupted):
        _scored(tmp_path, values, [], stop_after=4)
    kept = (tmp_path / "model_best.pt").read_bytes()
    best: list[int] = []
    checkpoint = _scored(tmp_path, values, best)
    assert checkpoint.best == 0.9 and best == []
    assert (tmp_path / "model_best.pt").read_bytes() == kept


def test_interval_and_seconds(tmp_path: Path) -> None:
    written: list[int] = []
    for name, arguments in (("often", {"interval": 2}), ("seldom", {"min_seconds": 3600})):
        trainer, checkpoint = _trainer(tmp_path / name)
        for key, value in arguments.items():
            setattr(checkpoint, key, value)
        path = tmp_path / name / "checkpoint.pt"
        written.clear()

        def note(engine: Engine, path: Path = path) -> None:
            if path.exists():
                stored = torch.load(path, weights_only=True)
                written.append(stored["trainer"]["iteration"] // 2)

        trainer.add_event_handler(Events.EPOCH_STARTED, note)
        trainer.run()
        assert written == ([2, 2, 4, 4] if name == "often" else [])
        assert (tmp_path / name / "model.pt").exists()


class Counter:
    """Something a run goes on with beside its network: how many iterations it has seen."""

    def __init__(self) -> None:
        self.count = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)

    def _add(self, engine: Engine) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def _averaged(folder: Path, stop_after: int | None = None) -> tuple[nn.Module, WeightAverage, Counter]:
    """Train a network whose average is the result, the metric rising until the third of five epochs."""
    torch.manual_seed(2)
    network = Dropped()
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    evaluator, counter = Engine(lambda engine, batch: None), Counter()
    average = WeightAverage(network, decay=0.7)
    checkpoint = TrainingCheckpoint(
        folder,
        network,
        optimizer,
        min_seconds=0,
        evaluator=evaluator,
        key_metric="quality",
        result=average.module,
        also={"average": average, "counter": counter},
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=5,
        train_data_loader=[{"image": torch.ones(4, 1, 4, 4)}] * 3,
        network=network,
        optimizer=optimizer,
        loss_function=ReconstructionLoss(),
        prepare_batch=prepare_image_batch,
        decollate=False,
        train_handlers=[checkpoint, average, counter],
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        evaluator.state.metrics = {"quality": -abs(engine.state.epoch - 3.0)}
        evaluator.run([0])
        if engine.state.epoch == 3:
            torch.save(average.module.state_dict(), folder / "third.pt")

    @trainer.on(Events.EPOCH_STARTED)
    def interrupt(engine: Engine) -> None:
        if engine.state.epoch == stop_after:
            raise Interrupted

    trainer.run()
    return network, average, counter


def _file(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def test_result_is_what_the_models_hold_and_the_network_is_what_goes_on(tmp_path: Path) -> None:
    network, average, _ = _averaged(tmp_path)
    expected = {"model.pt": average.module.state_dict(), "model_best.pt": _file(tmp_path / "third.pt")}
    _assert_same_models({name: _file(tmp_path / name) for name in expected}, expected)
    stored = _file(tmp_path / "checkpoint.pt")
    _assert_same_models({"network": stored["network"]}, {"network": network.state_dict()})
    assert not torch.equal(network.decoder.weight, average.module.decoder.weight)
    assert set(stored["also"]) == {"average", "counter"}


@pytest.mark.parametrize("stop_after", [2, 3, 4, 5])
def test_what_else_is_named_goes_on_too(stop_after: int, tmp_path: Path) -> None:
    network, average, counter = _averaged(tmp_path / "unbroken")
    with pytest.raises(Interrupted):
        _averaged(tmp_path / "broken", stop_after)
    again = _averaged(tmp_path / "broken")
    assert again[2].count == counter.count == 15
    assert int(again[1].state_dict()["n_averaged"]) == 15
    states = [[part.state_dict() for part in parts] for parts in (again[:2], (network, average))]
    for mine, theirs in zip(*states, strict=True):
        _assert_same_models({"": mine}, {"": theirs})
    for name in ("model.pt", "model_best.pt"):
        _assert_same_models({"": _file(tmp_path / "broken" / name)}, {"": _file(tmp_path / "unbroken" / name)})


@pytest.mark.parametrize("arguments", [{"interval": 0}, {"min_seconds": -1.0}, {"seed": -1}])
def test_wrong_arguments(arguments: dict[str, Any], tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="at least"):
        TrainingCheckpoint(tmp_path, network, torch.optim.SGD(network.parameters()), **arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"similarity": manhattan_similarity},
        {"weight": 0.5},
    ],
)
def test_what_is_trained_is_part_of_the_settings(changes: dict[str, Any]) -> None:
    assert _describe(RepulsionLoss(ReconstructionLoss(), **changes)) != _describe(RepulsionLoss(ReconstructionLoss()))
    member = {"spatial_size": 16, "hidden_channels": 4}
    network = DenseAutoencoder(**member)
    assert _describe(network) == _describe(DenseAutoencoder(**member))
    assert _describe(network) != _describe(DenseAutoencoder(**member, feature_layer="bottleneck"))
    assert _describe(DenseAutoencoder(**member, memory_slots=4)) != _describe(
        DenseAutoencoder(**member, memory_slots=4, shrink_threshold=0.1)
    )
