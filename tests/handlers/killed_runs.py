# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of a bundle in processes of their own that die by SIGKILL at a chosen moment.

The processes are forked from a server that has imported everything once, since the imports take longer than the runs.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from ignite.engine import Events
from monai.bundle import run
from monai.engines import SupervisedEvaluator

from monai_anomaly.data.phantom import make_phantom
from monai_anomaly.engines import EnsembleTrainer

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "d2ue_ae"
PRELOADED = [__name__, *(f"monai_anomaly.{part}" for part in ("data", "handlers", "inferers", "losses", "transforms"))]

# the bundle as it is, except for what takes time and writes nothing that a resumed run depends on
OVERRIDES: dict[str, Any] = {
    "validate#handlers": [],
    "train#handlers": [
        {
            "_target_": "monai_anomaly.handlers.TrainingCheckpoint",
            "save_dir": "@ckpt_dir",
            "network": "@network_def",
            "optimizer": "@optimizer",
            "seed": "@seed",
            "min_seconds": "@checkpoint_seconds",
            "evaluator": "@validate#evaluator",
            "settings": "@settings",
        },
        {
            "_target_": "monai.handlers.ValidationHandler",
            "validator": "@validate#evaluator",
            "interval": "@val_interval",
            "epoch_level": True,
        },
    ],
    "run": ["$@train#trainer.run()"],
}


class Death(NamedTuple):
    """When a run dies.

    Attributes:
        moment: ``"iteration"``, ``"validation"`` or ``"write"``.
        number: of that moment, from 1; iterations count over resumed runs, the others within the process.
        name: of the file during whose writing it dies.
    """

    moment: str
    number: int
    name: str = ""


def write_settings(folder: Path, **settings: Any) -> Path:
    """Write a small data set and the overrides of a small run; returns the config that holds them."""
    if not (folder / "data").exists():
        make_phantom(folder / "data", size=32, num_training=10, num_unlabeled=0, num_validation=4, num_testing=5)
    small = {
        "bundle_root": str(BUNDLE),
        "dataset_dir": str(folder / "data"),
        "spatial_size": [32, 32],
        "latent_channels": 4,
        "hidden_channels": 8,
        "max_epochs": 2,
        "batch_size": 4,
        "val_interval": 1,
        "checkpoint_seconds": 0,
    }
    path = folder / "small.json"
    path.write_text(json.dumps(OVERRIDES | small | settings), encoding="utf-8")
    return path


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_iteration(number: int) -> None:
    begin = EnsembleTrainer.run

    def run_until(trainer: EnsembleTrainer) -> None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=number), _die)
        begin(trainer)

    EnsembleTrainer.run = run_until  # type: ignore[method-assign]


def _die_at_call(
    owner: Any, name: str, number: int, last_act: Callable[..., None], counts: Callable[..., bool]
) -> None:
    original, calls = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        if counts(*args):
            calls.append(args)
        if counts(*args) and len(calls) == number:
            last_act(*args)
            _die()
        return original(*args, **kwargs)

    setattr(owner, name, call)


def _write_half(save: Callable[..., None], state: Any, path: Path) -> None:
    buffer = io.BytesIO()
    save(state, buffer)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def _run(settings: Path, output_dir: Path, death: Death | None) -> None:
    torch.set_num_threads(1)
    if death is not None and death.moment == "iteration":
        _die_at_iteration(death.number)
    elif death is not None and death.moment == "validation":
        _die_at_call(SupervisedEvaluator, "run", death.number, lambda *_: None, lambda *_: True)
    elif death is not None:
        save = torch.save
        _die_at_call(
            torch, "save", death.number, lambda state, path: _write_half(save, state, path),
            lambda state, path: isinstance(path, Path) and death.name in re.split(r"[.-]", path.name),
        )  # fmt: skip
    run(config_file=[str(BUNDLE / "configs" / "train.json"), str(settings)], output_dir=str(output_dir))


def run_bundle(settings: Path, output_dir: Path, death: Death | None = None) -> int:
    """Train in another process; returns its exit code, -9 when it died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(settings, output_dir, death))
    # the server looks for the modules where a new interpreter does, not where this one does
    folders = os.pathsep.join([str(Path(__file__).parent), str(BUNDLE.parents[1])])
    with patch.dict(os.environ, PYTHONPATH=folders, OMP_NUM_THREADS="1"):
        process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def read_models(output_dir: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights that a run has left, by file."""
    models = output_dir / "models"
    return {name: torch.load(models / name, weights_only=True) for name in ("model.pt", "model_best.pt")}
