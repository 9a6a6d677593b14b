# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from .checkpoint_file import CheckpointFile
from .training_checkpoint import TrainingCheckpoint


class FitCheckpoint(TrainingCheckpoint):
    """Saves a fit between its batches, and goes on from there when the same command is started again.

    For :class:`monai_anomaly.engines.FitTrainer`, as :class:`TrainingCheckpoint` is for trainings, with the same files
    but ``model_best.pt``: a fit has one result. A checkpoint holds what the network has taken in and after how many
    batches, so that a resumed fit has equal statistics. With several processes each keeps its own in
    ``checkpoint_<rank>.pt`` (the first one in ``checkpoint.pt``), of its share alone: what is merged at the end is
    never gone on with, but merged again.

    Args:
        save_dir: folder of the files, made if missing.
        network: network that is fitted.
        settings: what must be equal for a run to go on, plain numbers, strings and lists; the number of processes is
            added.
        seed: base of the random state, at least 0.
        min_seconds: seconds that must have passed since the last checkpoint; the one after the last batch is always
            written.
        evaluator: evaluator of the validation images, whose files must be the same for a run to go on; None: none.
        resume: go on with the run that ``save_dir`` holds; False starts anew.
        whole_files: whether a resumed run compares every byte of the images with those it began with.

    Raises:
        ValueError: as for :class:`TrainingCheckpoint`.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        network: nn.Module,
        settings: dict[str, Any] | None = None,
        seed: int = 0,
        min_seconds: float = 15.0,
        evaluator: Engine | None = None,
        resume: bool = True,
        whole_files: bool = False,
    ) -> None:
        processes = {"processes": idist.get_world_size()}
        super().__init__(
            save_dir,
            network,
            None,
            (settings or {}) | processes,
            seed=seed,
            min_seconds=min_seconds,
            evaluator=evaluator,
            resume=resume,
            whole_files=whole_files,
        )
        if rank := idist.get_rank():
            self._checkpoint = CheckpointFile(self._checkpoint.path.with_stem(f"checkpoint_{rank}"))

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_if_due)
        engine.add_event_handler(Events.COMPLETED, self._save_last)
        engine.add_event_handler(Events.COMPLETED, self._release)

    def _save_after_others(self, engine: Engine) -> None:
        pass  # between batches there is nothing to wait for

    def _save_if_due(self, engine: Engine) -> None:
        # the share of this process is complete here, and merged with those of the others next
        batches = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
        if engine.state.iteration == batches:
            self.save(engine)
        else:
            super()._save_if_due(engine)

    def _write(self, state: dict[str, Any]) -> None:
        self._checkpoint.save(state)

    def _save_last(self, engine: Engine) -> None:
        self._save_results()
