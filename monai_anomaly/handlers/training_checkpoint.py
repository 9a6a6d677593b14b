# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer

from ..networks.blocks.ensemble import NetworkEnsemble
from ..networks.blocks.feature_extractor import FeatureExtractor
from ..utils import (
    callable_name,
    check_output,
    derive_seed,
    lock_folder,
    release_folder,
    save_weights,
    unwrap,
    write_json,
)
from ..utils.weights import SETTINGS_FILE
from .checkpoint_file import CheckpointFile
from .training_data import WHOLE, DataMark, short_hash

logger = logging.getLogger(__name__)

CHECKPOINT, LAST, BEST, SETTINGS = "checkpoint.pt", "model.pt", "model_best.pt", SETTINGS_FILE
#: What is said of a setting that only a hash stands for.
_CHANGES = {
    "training_data": "the training images are others, or in another order, or their targets are",
    "training_files": "files of the training images have changed since",
    "validation_files": "files of the validation images have changed since",
    "network": "the network is another one",
    "loss": "the loss is another one",
    "optimizer": "the optimizer is another one",
}


class TrainingCheckpoint:
    """Saves a run while it goes, and goes on from there when the same command is started again.

    Writes into ``save_dir``: ``checkpoint.pt`` (network, optimizer, trainer; between epochs) and the one before it,
    ``model.pt`` (the network at the end) with ``training.json`` (its settings), and ``model_best.pt`` (the network with
    the best validation metric). Both networks carry the settings inside as well
    (:func:`monai_anomaly.utils.read_settings`), so that whoever loads them can build the network they fit. Every file
    is replaced whole, so a kill at any moment costs at most the epochs since the last checkpoint; one that cannot be
    read any more costs those since the one before. While it runs, no other process may train into the folder. PyTorch's
    random state is set from (seed, epoch) before each epoch: repeated epochs draw what they drew before, and the
    resumed run ends where an unbroken one would.

    Args:
        save_dir: folder of the files, made if missing.
        network: network that is trained, possibly wrapped for distributed training.
        optimizer: its optimizer; None where it is fitted without one.
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
        whole_files: whether a resumed run compares every byte of the images with those it began with, instead of size
            and samples, see :class:`DataMark`.

    Raises:
        ValueError: when an argument is outside its range; at the start of a run, when ``save_dir`` holds a run with
            other settings or of other images, or is in use by another process.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        network: nn.Module,
        optimizer: Optimizer | None,
        settings: dict[str, Any] | None = None,
        seed: int = 0,
        interval: int = 1,
        min_seconds: float = 15.0,
        evaluator: Engine | None = None,
        key_metric: str = "image_auroc",
        resume: bool = True,
        result: nn.Module | None = None,
        also: Mapping[str, Any] | None = None,
        whole_files: bool = False,
    ) -> None:
        if interval < 1 or min_seconds < 0 or seed < 0:
            raise ValueError(
                f"interval must be at least 1, min_seconds and seed at least 0, got {interval}, {min_seconds}, {seed}."
            )
        self.save_dir = check_output(save_dir)
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
        self.whole_files = whole_files
        self._checkpoint = CheckpointFile(self.save_dir / CHECKPOINT)
        self._data: dict[str, str | None] = {}
        self._times: list[str | None] = []
        self._optimizer = short_hash(_describe(optimizer))  # now: a schedule changes it while it runs
        self._recorded: dict[str, Any] = {}
        self._loaded = False
        self._last_save = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share_buffers)
        engine.add_event_handler(Events.COMPLETED, self._save_last)
        engine.add_event_handler(Events.COMPLETED, self._release)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._save_if_best)

    def _start(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            lock_folder(self.save_dir)
        self._data = self._marks(engine)
        self._times = [DataMark(engine).times(), DataMark(self.evaluator).times()]
        self._save_after_others(engine)
        self._recorded = self._all_settings(engine) | {"total_epochs": engine.state.max_epochs}
        if self.resume and not self._loaded:  # a second call of the same trainer goes on with what it has
            self.load(engine)
        self._loaded = True

    def _save_after_others(self, engine: Engine) -> None:
        # the last handler of an epoch: a run saved before its validation and killed during it would never repeat it
        if engine.has_event_handler(self._save_if_due, Events.EPOCH_COMPLETED):
            engine.remove_event_handler(self._save_if_due, Events.EPOCH_COMPLETED)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_if_due)

    def load(self, engine: Engine) -> None:
        """Restore the run that ``save_dir`` holds, if it holds one."""
        path = self._checkpoint.path
        stored = self._checkpoint.load(next(self.network.parameters()).device)
        if stored is None:
            return
        self._compare(stored, engine)
        unwrap(self.network).load_state_dict(stored["network"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(stored["optimizer"])
        engine.load_state_dict(stored["trainer"])
        for name, part in self._others(engine).items():
            if stored["also"][name]:  # empty: a scaler of gradients on a device that has no use for it
                part.load_state_dict(stored["also"][name])
        self.best = stored["best"]
        if engine.state.epoch == engine.state.max_epochs:
            logger.info("%s is complete: evaluate it, or choose another output_dir", path)
        else:
            batches = engine.state.iteration % (engine.state.epoch_length or 1)
            logger.info("resumed from %s after epoch %d and %d batches", path, engine.state.epoch, batches)

    def _compare(self, stored: Mapping[str, Any], engine: Engine) -> None:
        """Refuse to go on with other settings or other images."""
        before = stored["settings"] | {"total_epochs": stored["trainer"]["max_epochs"]}
        expected = self._all_settings(engine) | {"total_epochs": engine.state.max_epochs}
        changed = [_told(key, before.get(key), value) for key, value in expected.items() if before.get(key) != value]
        if changed:
            raise ValueError(
                f"{self._checkpoint.path} belongs to a run with other settings ({'; '.join(dict.fromkeys(changed))}): "
                "choose another output_dir, give the old settings, or delete the file to start anew."
            )
        if stored.get("times") != self._times and not self.whole_files:
            logger.warning(
                "files of the images were written again since this run began; their sizes and samples are the same. "
                "A run begun with --whole_files True compares every byte"
            )

    def _marks(self, engine: Engine) -> dict[str, str | None]:
        """What the images of this run are known by; computed once, since every file is opened."""
        training, validation = DataMark(engine, self.whole_files), DataMark(self.evaluator, self.whole_files)
        return {
            "training_data": training.names(),
            "training_files": training.contents(),
            "validation_files": validation.contents(),
        }

    def _release(self, engine: Engine) -> None:
        release_folder(self.save_dir)

    def _others(self, engine: Engine) -> dict[str, Any]:
        """What goes on beside network, optimizer and trainer."""
        scaler = getattr(engine, "scaler", None)  # of gradients, with mixed precision only
        return self.also if scaler is None else self.also | {"gradient_scaler": scaler}

    def _all_settings(self, engine: Engine) -> dict[str, Any]:
        return self.settings | {
            "epoch_length": engine.state.epoch_length,
            **self._data,
            **_sources(unwrap(self.network)),
            "network": short_hash(_describe(unwrap(self.network))),
            "loss": short_hash(_describe(getattr(engine, "loss_function", None))),
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
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "trainer": engine.state_dict(),
            "best": self.best,
            "also": {name: part.state_dict() for name, part in self._others(engine).items()},
            "times": self._times,
        }
        self._write(state)
        self._last_save = time.monotonic()

    def _write(self, state: dict[str, Any]) -> None:
        if idist.get_rank() == 0:
            self._checkpoint.save(state)

    def _save_last(self, engine: Engine) -> None:
        self.save(engine)
        self._save_results()

    def _save_results(self) -> None:
        self._save_result(LAST)
        if idist.get_rank() == 0:
            write_json(self.save_dir / SETTINGS, self._recorded)

    def _save_if_best(self, evaluator: Engine) -> None:
        value = float(evaluator.state.metrics.get(self.key_metric, math.nan))
        if value > self.best and _all_members_trained(self.network):  # the former is false for NaN
            self.best = value
            self._save_result(BEST)

    def _save_result(self, name: str) -> None:
        if idist.get_rank() == 0:
            save_weights(unwrap(self.result).state_dict(), self.save_dir / name, self._recorded)


def _describe(part: Any) -> str:
    """What a network, loss or optimizer is, the same in every process."""
    return str(part) if isinstance(part, (nn.Module, Optimizer)) else callable_name(part)


def _sources(network: nn.Module) -> dict[str, Any]:
    """SHA-256 of the weights of each pre-trained network in it."""
    found = [part.source["sha256"] for part in network.modules() if isinstance(part, FeatureExtractor)]
    return {"backbone_sha256": found[0] if len(found) == 1 else found} if found else {}


def _all_members_trained(network: nn.Module) -> bool:
    ensembles = [module for module in network.modules() if isinstance(module, NetworkEnsemble)]
    return all(int(ensemble.num_active) == len(ensemble.members) for ensemble in ensembles)


def _told(key: str, before: Any, now: Any) -> str:
    """In words, what is another than when the run began."""
    if key in ("training_files", "validation_files"):
        whole = [str(mark).startswith(WHOLE) for mark in (before, now)]
        if whole[0] != whole[1]:
            return f"the run began {'with' if whole[0] else 'without'} --whole_files True"
    return _CHANGES.get(key, f"{key}: {before} -> {now}")
