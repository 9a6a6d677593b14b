# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from monai_anomaly.handlers import EpochProgress, loss_value


def _engine() -> Engine:
    return Engine(lambda engine, batch: {CommonKeys.LOSS: torch.tensor(0.25 * batch, requires_grad=True)})


def test_loss_value() -> None:
    value = loss_value({CommonKeys.LOSS: torch.tensor(0.125, requires_grad=True), CommonKeys.PRED: None})
    assert value == 0.125 and type(value) is float


def test_bar_of_a_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _engine()
    EpochProgress("learning").attach(trainer)
    trainer.run([1.0, 2.0], max_epochs=3)
    shown = capsys.readouterr().err
    assert "learning" in shown and "3/3" in shown and "loss=0.5000" in shown
    trainer.state.max_epochs = None  # from the beginning
    trainer.run([1.0, 4.0], max_epochs=2)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "loss=1.0000" in shown and "3/3" not in shown


def test_bar_of_a_resumed_run_begins_where_the_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _engine()
    trainer.add_event_handler(
        Events.STARTED, lambda engine: engine.load_state_dict({"iteration": 6, "max_epochs": 5, "epoch_length": 2})
    )
    EpochProgress().attach(trainer)
    trainer.run([1.0, 2.0], max_epochs=5)
    shown = capsys.readouterr().err
    assert "3/5" in shown and "5/5" in shown and "1/5" not in shown


def test_bar_of_an_evaluator(capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = Engine(lambda engine, batch: [{"score": 1}])
    EpochProgress("evaluation", unit="batch").attach(evaluator)
    evaluator.run([1, 2, 3, 4])
    shown = capsys.readouterr().err
    assert "evaluation" in shown and "4/4" in shown and "batch" in shown


def test_only_the_first_process_shows_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    trainer = _engine()
    EpochProgress().attach(trainer)
    trainer.run([1.0], max_epochs=2)
    assert capsys.readouterr().err == ""


def test_nothing_to_do_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _engine()
    trainer.add_event_handler(
        Events.STARTED, lambda engine: engine.load_state_dict({"iteration": 4, "max_epochs": 2, "epoch_length": 2})
    )
    EpochProgress().attach(trainer)
    trainer.run([1.0, 2.0], max_epochs=2)
    assert capsys.readouterr().err == ""


def test_unknown_unit() -> None:
    with pytest.raises(ValueError, match='"epoch" or "batch", got \'image\''):
        EpochProgress(unit="image")
