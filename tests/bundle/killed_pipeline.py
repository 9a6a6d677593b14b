# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Steps of a method one after the other in a process that dies by SIGKILL at a chosen moment, and what they leave.

The processes are forked from a server that has imported everything once, since the imports take longer than the runs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer

from monai_anomaly.bundle.build import build_bundle

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
PRELOADED = [__name__, *(f"monai_anomaly.{part}" for part in ("data", "handlers", "inferers", "losses", "transforms"))]


class Death(NamedTuple):
    """When a process dies.

    Attributes:
        place: part of the path of a file, which is whole but does not yet stand in its place when the process dies; or
            ``"iteration"``.
        number: which of these, from 1, counted within the process.
    """

    place: str
    number: int = 1


class Run(NamedTuple):
    """One run of a bundle: name, configurations and options."""

    bundle: str
    configs: Sequence[str]
    options: dict[str, Any]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _count_iterations(death: Death | None, record: Path) -> None:
    counted = [0]
    original = SupervisedTrainer._iteration

    def iterate(trainer: SupervisedTrainer, *arguments: Any) -> Any:
        counted[0] += 1
        if death is not None and (death.place, death.number) == ("iteration", counted[0]):
            _die()
        with open(record, "ab") as file:
            file.write(b".")
        return original(trainer, *arguments)

    SupervisedTrainer._iteration = iterate  # type: ignore[method-assign]


def _die_at_file(death: Death) -> None:
    original, seen = os.replace, [0]

    def replace(source: Any, target: Any, **options: Any) -> None:
        seen[0] += death.place in str(target)
        if death.place in str(target) and seen[0] == death.number:
            _die()
        original(source, target, **options)

    os.replace = replace


def _build_here(command: Sequence[str], **_: Any) -> None:
    """Make a bundle in this process, where everything is imported, though the run itself may write no configuration."""
    thread = threading.Thread(target=build_bundle, args=(command[4], command[-1]))
    thread.start()
    thread.join()


def _run(runs: Sequence[Run], death: Death | None, record: Path) -> None:
    torch.set_num_threads(1)
    _count_iterations(death, record)
    if death is not None:
        _die_at_file(death)
    with patch("monai_anomaly.engines.bundle_steps.subprocess.run", _build_here):
        for run in runs:
            files = [str(BUNDLES / run.bundle / "configs" / f"{config}.json") for config in run.configs]
            workflow = ConfigWorkflow(files, bundle_root=str(BUNDLES / run.bundle), **run.options)
            workflow.initialize()
            workflow.run()


def run_all(runs: Sequence[Run], record: Path, death: Death | None = None) -> int:
    """Run bundles one after the other in another process.

    Args:
        runs: what to run.
        record: file to which each training iteration adds a byte.
        death: when the process dies; None: not.

    Returns:
        Its exit code, -9 when it died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(runs, death, record))
    folders = os.pathsep.join([str(Path(__file__).parent), str(BUNDLES.parent)])
    with patch.dict(os.environ, PYTHONPATH=folders, OMP_NUM_THREADS="1"):
        process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def read_results(folder: Path) -> dict[str, Any]:
    """Weights, tables and pseudo-labels below a folder, by path."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".pt" and "_before" not in name:
            found[name] = torch.load(path, weights_only=True)
        elif path.name in ("scores.csv", "pseudo_labels.json", "metrics.json", "training.json"):
            found[name] = path.read_text(encoding="utf-8").replace(str(folder), "FOLDER")
    return found
