# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer

from ..networks.blocks.ensemble import NetworkEnsemble
from ..utils import Keys, atomic_path, callable_name, derive_seed, unwrap, write_json

logger = logging.getLogger(__name__)

CHECKPOINT, LAST, BEST, SETTINGS = "checkpoint.pt", "model.pt", "model_best.pt", "training.json"


class TrainingCheckpoint:
    """Saves a run while it goes, and goes on from there when the same command is started again.

    Writes into ``save_dir``: ``checkpoint.pt`` (network, optimizer, trainer; between epochs), ``model.pt`` (the
    network at the end) with ``training.json`` (its settings), and ``model_best.pt`` (the network with the best
    validation metric). Every file is replaced whole, so a kill at any moment costs at most the epochs since the last
    checkpoint. PyTorch's random state is set from (seed, epoch) before each epoch: repeated epochs draw what they
    drew before, and the resumed run ends where an unbroken one would.

    Args:
        save_dir: folder of the files, made if missing.
        network: network that is trained, possibly wrapped for distributed training.
        optimizer: its optimizer.
        settings: what must be equal for a run to go on, such as epochs, seed, size: plain numbers, strings and lists.
        seed: base of the random state, at least 0.
        interval: epochs between two checkpoints, at least 1.
        min_seconds: seconds that must have passed since the last checkpoint, so that short epochs are not slowed down.
        evaluator: evaluator whose ``key_metric`` chooses the best network; None saves no best one.
        key_metric: name of the metric, larger = better; an undefined value (NaN) never wins, nor does an ensemble whose
            members are not all trained.
        resume: go on with the run that ``save_dir`` holds; False starts anew, as federated learning wants, where the
            weights come from elsewhere.
        result: network whose weights ``model.pt`` and ``model_best.pt`` hold; None: ``network`` itself. An average of
            the weights, for instance.
        also: what else a resumed run goes on with, by name: anything with ``state_dict`` and ``load_state_dict``.

    Raises:
        ValueError: when an argument is outside its range; at the start of a run, when ``save_dir`` holds a run with
            other settings.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        network: nn.Module,
        optimizer: Optimizer,
        settings: dict[str, Any] | None = None,
        seed: int = 0,
        interval: int = 1,
        min_seconds: float = 15.0,
        evaluator: Engine | None = None,
        key_metric: str = "image_auroc",
        resume: bool = True,
        result: nn.Module | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        if interval < 1 or min_seconds < 0 or seed < 0:
            raise ValueError(
                f"interval must be at least 1, min_seconds and seed at least 0, got {interval}, {min_seconds}, {seed}."
            )
        self.save_dir = Path(save_dir)
        self.network = network
        self.optimizer = optimizer
        self.settings = dict(settings or {})
        self.seed = seed
        self.interval = interval
        self.min_seconds = min_seconds
        self.evaluator = evaluator
        self.key_metric = key_metric
        self.best = -math.inf
        self.resume = resume
        self.result = network if result is None else result
        self.also = dict(also or {})
        self._optimizer = _short_hash(_describe(optimizer))  # now: a schedule changes it while it runs
        self._loaded = False
        self._last_save = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share_buffers)
        engine.add_event_handler(Events.COMPLETED, self._save_last)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._save_if_best)

    def _start(self, engine: Engine) -> None:
        # the last handler of an epoch: a run saved before its validation and killed during it would never repeat it
        if engine.has_event_handler(self._save_if_due, Events.EPOCH_COMPLETED):
            engine.remove_event_handler(self._save_if_due, Events.EPOCH_COMPLETED)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_if_due)
        if self.resume and not self._loaded:  # a second call of the same trainer goes on with what it has
            self.load(engine)
        self._loaded = True

    def load(self, engine: Engine) -> None:
        """Restore the run that ``save_dir`` holds, if it holds one."""
        path = self.save_dir / CHECKPOINT
        if not path.is_file():
            return
        stored = torch.load(path, map_location=next(self.network.parameters()).device, weights_only=True)
        before = stored["settings"] | {"total_epochs": stored["trainer"]["max_epochs"]}
        expected = self._all_settings(engine) | {"total_epochs": engine.state.max_epochs}
        changed = [
            f"{key}: {before.get(key)} -> {value}" for key, value in expected.items() if before.get(key) != value
        ]
        if changed:
            raise ValueError(
                f"{path} belongs to a run with other settings ({'; '.join(changed)}): choose another output_dir, "
                "give the old settings, or delete the file to start anew."
            )
        unwrap(self.network).load_state_dict(stored["network"])
        self.optimizer.load_state_dict(stored["optimizer"])
        engine.load_state_dict(stored["trainer"])
        for name, part in self._others(engine).items():
            if stored["also"][name]:  # empty: a scaler of gradients on a device that has no use for it
                part.load_state_dict(stored["also"][name])
        self.best = stored["best"]
        if engine.state.epoch == engine.state.max_epochs:
            logger.info("%s is complete: evaluate it, or choose another output_dir", path)
        else:
            logger.info("resumed from %s after epoch %d", path, engine.state.epoch)

    def _others(self, engine: Engine) -> dict[str, Any]:
        """What goes on beside network, optimizer and trainer."""
        scaler = getattr(engine, "scaler", None)  # of gradients, with mixed precision only
        return self.also if scaler is None else self.also | {"gradient_scaler": scaler}

    def _all_settings(self, engine: Engine) -> dict[str, Any]:
        return self.settings | {
            "epoch_length": engine.state.epoch_length,
            "training_data": _fingerprint(engine),
            "network": _short_hash(_describe(unwrap(self.network))),
            "loss": _short_hash(_describe(getattr(engine, "loss_function", None))),
            "optimizer": self._optimizer,
        }

    def _seed_epoch(self, engine: Engine) -> None:
        torch.manual_seed(derive_seed(self.seed, engine.state.epoch))

    def _share_buffers(self, engine: Engine) -> None:
        # each process has seen other batches: validation and the next epoch go on with the statistics that are saved
        if idist.get_world_size() > 1:
            for buffer in unwrap(self.network).buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _save_if_due(self, engine: Engine) -> None:
        late = time.monotonic() - self._last_save >= self.min_seconds
        if late and engine.state.epoch % self.interval == 0:
            self.save(engine)

    def save(self, engine: Engine) -> None:
        """Write ``checkpoint.pt`` now (first process only)."""
        state = {
            "settings": self._all_settings(engine),
            "network": unwrap(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "trainer": engine.state_dict(),
            "best": self.best,
            "also": {name: part.state_dict() for name, part in self._others(engine).items()},
        }
        self._write(CHECKPOINT, state)
        self._last_save = time.monotonic()

    def _save_last(self, engine: Engine) -> None:
        self.save(engine)
        self._write(LAST, unwrap(self.result).state_dict())
        if idist.get_rank() == 0:
            epochs = {"total_epochs": engine.state.max_epochs}
            write_json(self.save_dir / SETTINGS, self._all_settings(engine) | epochs)

    def _save_if_best(self, evaluator: Engine) -> None:
        value = float(evaluator.state.metrics.get(self.key_metric, math.nan))
        if value > self.best and _all_members_trained(self.network):  # the former is false for NaN
            self.best = value
            self._write(BEST, unwrap(self.result).state_dict())

    def _write(self, name: str, state: dict[str, Any]) -> None:
        if idist.get_rank() == 0:
            with atomic_path(self.save_dir / name) as path:
                torch.save(state, path)


def _fingerprint(engine: Engine) -> str | None:
    """Hash of the training images and their targets, in order; None where the data set does not tell."""
    dataset = getattr(getattr(engine, "data_loader", None), "dataset", None)
    items = [item for item in getattr(dataset, "data", None) or [] if isinstance(item, dict)]
    files = [
        os.path.abspath(item[Keys.IMAGE]) for item in items if isinstance(item.get(Keys.IMAGE), (str, os.PathLike))
    ]
    if not files or len(files) < len(items):
        return None
    # below their common folder, because a data set may move between machines while a run waits
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    named = [f"{os.path.relpath(file, root)} {item.get(Keys.TARGET)}" for file, item in zip(files, items, strict=True)]
    return _short_hash("\n".join(named))


def _describe(part: Any) -> str:
    """What a network, loss or optimizer is, the same in every process."""
    return str(part) if isinstance(part, (nn.Module, Optimizer)) else callable_name(part)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _all_members_trained(network: nn.Module) -> bool:
    ensembles = [module for module in network.modules() if isinstance(module, NetworkEnsemble)]
    return all(int(ensemble.num_active) == len(ensemble.members) for ensemble in ensembles)
