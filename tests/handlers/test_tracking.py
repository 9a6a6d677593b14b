# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What MONAI's ``--tracking mlflow`` asks of every bundle, with a store in memory instead of MLflow's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.handlers import MLFlowHandler, from_engine

from monai_anomaly.bundle.build import bundle_files, recipe_names
from monai_anomaly.bundle.options import check_options
from monai_anomaly.handlers import ListedLoss, TrackedFiles

FILES = {name: bundle_files(name) for name in recipe_names()}


class Store(MLFlowHandler):
    """MONAI's handler, what it is told kept in lists."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.cur_run: Any = None
        self.client: Any = self
        self.params: dict[str, str] = {}
        self.files: list[str] = []
        self.losses: list[float] = []
        self.ended = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.complete)

    def start(self, engine: Engine) -> None:
        self.cur_run = SimpleNamespace(info=SimpleNamespace(run_id="7"))

    def iteration_completed(self, engine: Engine) -> None:
        self.losses.append(float(from_engine(["loss"], first=True)(engine.state.output)))

    def complete(self) -> None:
        assert not self.ended or self.cur_run is None

    def get_run(self, run: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(params=self.params))

    def log_param(self, run: str, name: str, value: str) -> None:
        assert run == "7" and name not in self.params
        self.params[name] = value

    def log_artifact(self, run: str, path: str) -> None:
        self.files.append(Path(path).name)

    def close(self) -> None:
        self.ended, self.cur_run = True, None


def engine_with(*handlers: Any) -> Engine:
    """A trainer whose output is a dictionary, as with ``decollate=False``."""
    engine = Engine(lambda *_: {"loss": torch.tensor(0.5, requires_grad=True), "image": torch.zeros(2)})
    for handler in handlers:
        handler.attach(engine)
    return engine


def test_the_loss_is_what_monai_logs() -> None:
    with pytest.raises(TypeError, match="tuple"):
        engine_with(Store()).run([0], max_epochs=1)
    store = Store()
    engine = engine_with(ListedLoss(), store)
    engine.run([0, 1], max_epochs=2)
    assert store.losses == [0.5] * 4
    assert list(engine.state.output[0]) == ["loss"] and not engine.state.output[0]["loss"].requires_grad


def test_files_and_settings_are_handed_over(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    names = ["metrics.json", "report.html", "config_1.json", "config_2.json", "other.txt"]
    for path in (*(tmp_path / name for name in names), tmp_path / "audit" / "audit.json"):
        path.write_text("{}")
    store = Store()
    settings = {"seed": 3, "spatial_size": [8, 8], "long": "x" * 9000}
    files = TrackedFiles(tmp_path, audit_dir=tmp_path / "audit", settings=settings, close=True)
    engine = engine_with(ListedLoss(), files, store)
    engine.run([0], max_epochs=1)
    assert sorted(store.files) == ["audit.json", "config_2.json", "metrics.json", "report.html"]
    assert store.params["seed"] == "3" and store.params["spatial_size"] == "[8, 8]" and len(store.params["long"]) == 500
    assert store.ended
    engine.run([0], max_epochs=2)  # the same settings again are no error
    assert len(store.params) == 3


def test_without_a_tracker_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    engine_with(ListedLoss(), TrackedFiles(tmp_path, close=True)).run([0], max_epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def handlers_of(config: dict[str, Any]) -> Any:
    """Handlers of a configuration's trainer, if it has one of its own."""
    return config.get("train#handlers") or config.get("train", {}).get("handlers")


TRAININGS = [
    (name, path)
    for name, files in FILES.items()
    for path, content in files.items()
    if isinstance(content, dict) and handlers_of(content)
]


@pytest.mark.parametrize(("name", "path"), TRAININGS)
def test_every_trainer_leaves_what_is_logged(name: str, path: str) -> None:
    targets = [item.get("_target_", "") for item in handlers_of(FILES[name][path]) if isinstance(item, dict)]
    assert targets[0] == "monai_anomaly.handlers.ListedLoss" and "monai_anomaly.handlers.TrackedFiles" in targets


@pytest.mark.parametrize("name", FILES)
def test_every_evaluation_hands_its_files_over(name: str) -> None:
    for config, handlers in (("evaluate", "validate#handlers"), ("inference", "handlers")):
        last = FILES[name][f"configs/{config}.json"][handlers][-1]
        assert last["_target_"] == "monai_anomaly.handlers.TrackedFiles"
        assert config == "inference" or last["close"]  # MONAI ends the run of an evaluator, and of no validator
    assert (name, "configs/train.json") in TRAININGS


def test_settings_of_the_tracking_are_options(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"seed": 0}))
    words = ["run", "--config_file", str(path), "--run_name", "first", "--experiment_name", "mine"]
    with pytest.raises(ValueError, match="unknown option --run_name"):
        check_options(words)
    check_options([*words, "--tracking", "mlflow"])
    assert {"run_name", "experiment_name", "tracking_uri"} <= DEFAULT_MLFLOW_SETTINGS["configs"].keys()
    assert ConfigParser({"a": DEFAULT_MLFLOW_SETTINGS["configs"]["trainer"]})["a"]["_target_"] == "MLFlowHandler"
