# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``--tracking mlflow`` of ``monai.bundle run`` needs of a run, and does not find by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from monai.utils import CommonKeys

TRACKED_FILES = (
    "audit.json",
    "config_*.json",
    "metrics.json",
    "models/training.json",
    "report.html",
    "scores.csv",
    "training.json",
)
_LONGEST = 500  # characters of a parameter that every version of MLflow stores


class ListedLoss:
    """Leaves of a trainer's output the loss alone, as a list of one dictionary, for handlers of MONAI that come after.

    A trainer that does not take its batches apart (``decollate=False``) has a dictionary as its output, of which
    ``from_engine(["loss"], first=True)``, set by ``--tracking mlflow``, makes a tuple that cannot be logged; of a list
    it makes the loss.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, before the handlers that read its output."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Change the output of one iteration."""
        state: Any = engine.state
        output = state.output
        if isinstance(output, Mapping):
            state.output = [{CommonKeys.LOSS: output[CommonKeys.LOSS].detach()}]


class TrackedFiles:
    """Hands settings and files of a finished run to the experiment trackers on the same engine; without one, nothing.

    Trackers are the ``MLFlowHandler`` that MONAI adds for ``--tracking mlflow``. Put this after the handlers that write
    the files.

    Args:
        output_dir: folder of the run.
        files: what to hand over, as patterns of paths in that folder, passed over where there is none; default
            :data:`TRACKED_FILES`.
        audit_dir: folder of the audit, where it is another one.
        settings: parameters to log, one for each; default none.
        close: whether to end the tracker's run, for an evaluation that no trainer ends; default False.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        files: Sequence[str] = TRACKED_FILES,
        audit_dir: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        close: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.files = tuple(files)
        self.audit_dir = self.output_dir if audit_dir is None else Path(audit_dir)
        self.settings = dict(settings or {})
        self.close = close

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Hand over, and end the run of the tracker where that is wanted."""
        for tracker in _trackers(engine):
            run: Any = tracker.cur_run
            if run is None:
                continue
            run = run.info.run_id
            known = tracker.client.get_run(run).data.params
            for name, value in self.settings.items():
                if name not in known:  # a parameter is never changed, and a resumed run has logged it
                    tracker.client.log_param(run, name, str(value)[:_LONGEST])
            for path in self._paths():
                tracker.client.log_artifact(run, str(path))
            if self.close:
                tracker.close()

    def _paths(self) -> list[Path]:
        folders = dict.fromkeys((self.output_dir, self.audit_dir))
        found = {path for folder in folders for pattern in self.files for path in folder.glob(pattern)}
        configurations = sorted(path for path in found if path.name.startswith("config_"))
        return sorted(found.difference(configurations[:-1]))  # the configuration of this run is the last one


def _trackers(engine: Engine) -> Iterator[MLFlowHandler]:
    """MONAI gives its handler to the engine alone, and the engine keeps it as what it calls at the end."""
    for handler, *_ in list(engine._event_handlers[Events.COMPLETED]):
        owner = getattr(handler, "__self__", None)
        if isinstance(owner, MLFlowHandler) and getattr(handler, "__name__", "") == "complete":
            yield owner
