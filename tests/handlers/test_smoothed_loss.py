# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_anomaly.handlers import SmoothedLoss, TrainingCheckpoint


def _evaluator() -> Engine:
    """An evaluator that is given the losses of its batches."""
    return Engine(lambda engine, losses: {"losses": losses})


def _smoothed(values: list[float], keep: float) -> list[float]:
    result = [values[0]]
    for value in values[1:]:
        result.append(keep * result[-1] + (1 - keep) * value)
    return result


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_metrics_follow_the_published_average(keep: float) -> None:
    values = [3.0, 1.0, 2.5, 0.2, 0.7]
    evaluator = _evaluator()
    follower = SmoothedLoss(evaluator, keep)
    for value, expected in zip(values, _smoothed(values, keep), strict=True):
        metrics = evaluator.run([torch.full((4,), value)]).metrics
        assert metrics["validation_loss"] == pytest.approx(value)
        assert metrics["smoothed_loss"] == pytest.approx(expected)
        assert metrics["negative_loss"] == -metrics["smoothed_loss"] and follower.smoothed == metrics["smoothed_loss"]


def test_default_keeps_nine_tenths_and_never_ends() -> None:
    follower = SmoothedLoss(_evaluator())
    assert (follower.keep, follower.patience, follower.done) == (0.9, None, False)


def test_every_image_counts_once_whatever_the_batches() -> None:
    losses = torch.rand(11, generator=torch.Generator().manual_seed(0))
    for sizes in ([11], [4, 4, 3], [10, 1]):
        evaluator = _evaluator()
        SmoothedLoss(evaluator)
        metrics = evaluator.run(list(losses.split(sizes))).metrics
        assert metrics["validation_loss"] == pytest.approx(sum(losses.tolist()) / 11, rel=1e-6)


def test_images_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    others = iter([6.0, 2.0])  # sum and number of the losses elsewhere
    monkeypatch.setattr(idist, "all_reduce", lambda value: value + next(others))
    evaluator = _evaluator()
    SmoothedLoss(evaluator)
    assert evaluator.run([torch.tensor([1.0, 2.0, 0.0])]).metrics["validation_loss"] == pytest.approx(9 / 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_remedy(value: float) -> None:
    evaluator = _evaluator()
    SmoothedLoss(evaluator)
    with pytest.raises(ValueError, match="validation loss is not finite: lower learning_rate"):
        evaluator.run([torch.tensor([1.0, value])])


@pytest.mark.parametrize("arguments", [{"keep": 1.0}, {"keep": -0.1}, {"patience": 0}, {"patience": -3}])
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"keep must be in \[0, 1\) and patience at least 1 or None"):
        SmoothedLoss(_evaluator(), **arguments)


class Interrupted(Exception):
    pass


class Run:
    """A training whose validation losses are given, one an epoch; it knows which epochs it has trained."""

    def __init__(self, folder: Path, values: list[float], patience: int | None, stop_after: int | None = None) -> None:
        torch.manual_seed(0)
        network = nn.Linear(2, 1)
        optimizer = torch.optim.Adam(network.parameters(), 0.1)
        evaluator = _evaluator()
        self.epochs: list[int] = []
        self.network = network
        self.loss = SmoothedLoss(evaluator, keep=0.0, patience=patience)
        self.checkpoint = TrainingCheckpoint(
            folder,
            network,
            optimizer,
            min_seconds=0,
            evaluator=evaluator,
            key_metric="negative_loss",
            also={"loss": self.loss},
        )

        def validate(engine: Engine) -> None:
            evaluator.run([torch.tensor([values[engine.state.epoch - 1]])])
            self.epochs.append(engine.state.epoch)

        def interrupt(engine: Engine) -> None:
            if engine.state.epoch == stop_after:
                raise Interrupted

        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=len(values),
            train_data_loader=[{"image": torch.ones(3, 2), "label": torch.zeros(3, 1)}],
            network=network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            decollate=False,
            train_handlers=[self.checkpoint],
        )
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        self.loss.attach(self.trainer)
        self.trainer.add_event_handler(Events.EPOCH_STARTED, interrupt)

    def start(self) -> Tensor:
        self.trainer.run()
        return self.network.weight.detach().clone()


@pytest.mark.parametrize(
    ("values", "patience", "last"),
    [
        ([3, 2, 2.5, 2.5, 2.5, 2.5, 2.5], 3, 5),
        ([3, 2, 2.5, 1, 2.5, 2.5, 2.5, 2.5], 3, 7),
        ([3, 3, 3, 3], 1, 2),  # as good is not better
        ([5, 4, 3, 2, 1], 1, 5),
        ([1, 2, 3, 4, 5, 6], None, 6),
    ],
)
def test_training_ends_when_nothing_was_better_for_as_long(
    values: list[float], patience: int | None, last: int, tmp_path: Path
) -> None:
    run = Run(tmp_path, values, patience)
    run.start()
    assert run.epochs == list(range(1, last + 1))
    assert run.loss.best == min(values[:last]) and run.checkpoint.best == -run.loss.best
    # the best network and the last one are there, as at the end of any run
    assert {path.name for path in tmp_path.iterdir()} >= {"checkpoint.pt", "model.pt", "model_best.pt"}


@pytest.mark.parametrize("stop_after", [2, 3, 4, 5])
def test_a_resumed_training_ends_where_an_unbroken_one_does(stop_after: int, tmp_path: Path) -> None:
    values = [3, 2, 2.5, 2.1, 2.2, 1, 1, 1, 1]
    unbroken = Run(tmp_path / "unbroken", values, 3)
    expected = unbroken.start()
    assert unbroken.epochs == [1, 2, 3, 4, 5]
    broken = Run(tmp_path / "broken", values, 3, stop_after)
    with pytest.raises(Interrupted):
        broken.start()
    resumed = Run(tmp_path / "broken", values, 3)
    assert torch.equal(resumed.start(), expected)
    assert broken.epochs + resumed.epochs == unbroken.epochs
    assert resumed.loss.state_dict() == unbroken.loss.state_dict()
    assert unbroken.loss.state_dict() == pytest.approx({"smoothed": 2.2, "best": 2.0, "waited": 3})


def test_a_finished_training_ends_at_once_when_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Run(tmp_path, [3, 2, 2.5, 2.5, 2.5, 2.5], 2)
    expected = first.start()
    kept = (tmp_path / "model_best.pt").read_bytes()
    again = Run(tmp_path, [3, 2, 2.5, 2.5, 2.5, 2.5], 2)
    with caplog.at_level(logging.INFO):
        assert torch.equal(again.start(), expected)
    assert again.epochs == [] and again.trainer.state.epoch == 4 and again.trainer.state.iteration == 4
    assert "no better validation loss in 2 validations: the training ends" in caplog.text
    assert (tmp_path / "model_best.pt").read_bytes() == kept
    last = torch.load(tmp_path / "model.pt", weights_only=True)
    assert torch.equal(last["weight"], expected)


def test_the_average_goes_on_where_it_was() -> None:
    values = [3.0, 1.0, 2.5, 0.2]
    evaluator = _evaluator()
    follower = SmoothedLoss(evaluator)
    for value in values[:2]:
        evaluator.run([torch.tensor([value])])
    other_evaluator = _evaluator()
    other = SmoothedLoss(other_evaluator)
    other.load_state_dict(follower.state_dict())
    for value in values[2:]:
        metrics = other_evaluator.run([torch.tensor([value])]).metrics
    assert metrics["smoothed_loss"] == pytest.approx(_smoothed(values, 0.9)[-1])
