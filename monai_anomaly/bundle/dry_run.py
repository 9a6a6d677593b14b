# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What a run would train, step by step, told without training: ``--dry_run True``."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import merge_kv

from ..engines import BundleSteps, FoldRuns
from ..engines.step_runs import finished_steps
from ..handlers.checkpoint_file import CheckpointFile
from ..handlers.training_checkpoint import CHECKPOINT, LAST
from .build import bundle_files

_CALL = re.compile(r"\$@([\w:]+)\.run\(\)(?: if (.+) else None)?")
_TRAINER = "train::trainer"
_EVALUATORS = {"validate::evaluator": "validate::dataset::data", "evaluator": "dataset::data"}
_STARTS = ("start_weights", "pseudo_labels")  # settings of trainings; where a run looks for weights, checkpoint too
UNKNOWN = "?"


class PlannedStep(NamedTuple):
    """One step of a run.

    Attributes:
        name: of the step, steps of other bundles after a slash.
        images: number of images of an epoch; ``"?"`` where a step before decides.
        epochs: of a training.
        iterations: of a training, in all.
        to_see: images that the network is still shown, forward and back in a training: what the step costs.
        state: what is there already.
        starts_from: files that it begins with.
    """

    name: str
    images: int | str = ""
    epochs: int | str = ""
    iterations: int | str = ""
    to_see: int | str = ""
    state: str = ""
    starts_from: str = ""


def print_plan(workflow: ConfigWorkflow) -> None:
    """Print the steps of a workflow and leave it nothing to run.

    Args:
        workflow: a workflow that is being initialized.
    """
    steps = plan_run(workflow.parser, workflow.run_id)
    print(_table(steps))
    known = [step.to_see for step in steps if isinstance(step.to_see, int)]
    more = ", and what is not known yet (?)" if any(step.to_see == UNKNOWN for step in steps) else ""
    print(f"dry run, nothing was trained or written: {sum(known):,} images are still to be seen{more}")
    workflow.parser.get(workflow.run_id).clear()


def plan_run(parser: ConfigParser, run_id: str = "run") -> list[PlannedStep]:
    """Steps of a configuration, in their order.

    Args:
        parser: the configuration; it is only read.
        run_id: the list of what is run.
    """
    return list(_plan(parser, run_id, ""))


def _plan(parser: ConfigParser, run_id: str, prefix: str) -> Iterator[PlannedStep]:
    for entry in parser.get(run_id, []):
        found = _CALL.fullmatch(entry.replace("#", "::")) if isinstance(entry, str) else None
        if found is None:
            continue
        place, condition = found.groups()
        if condition and not _changed(parser, _condition=f"${condition}").get_parsed_content("_condition"):
            yield PlannedStep(prefix + _short(place), state="left out")
        elif place == _TRAINER:
            yield _training(parser, prefix + "training", run_id)
        elif place in _EVALUATORS:
            yield _scored(parser, prefix + "evaluation", _EVALUATORS[place])
        else:
            yield from _part(parser, place, prefix)


def _part(parser: ConfigParser, place: str, prefix: str) -> Iterator[PlannedStep]:
    try:
        part = parser.get_parsed_content(place)
    except RuntimeError:
        if "uses" not in (parser.get(place) or {}):
            raise
        # files that a step before writes are not there yet
        part = _changed(parser, **{f"{place}::uses": [UNKNOWN]}).get_parsed_content(place)
    if isinstance(part, FoldRuns):
        for fold in part.folds:
            yield _training(_changed(parser, fold=fold), f"{prefix}fold {fold}", part.run_id)
    elif isinstance(part, BundleSteps):
        job = part.job()
        for step, finished in zip(job["steps"], finished_steps(job), strict=True):
            name = f"{prefix}{_short(place)}/{Path(step['overrides']['output_dir']).name}"
            inner = list(_plan(_bundle(part.bundle, step, parser), "run", ""))
            yield from (_named(row, name, finished) for row in inner if row.name != "audit")
    else:
        yield PlannedStep(prefix + _short(place))


def _named(row: PlannedStep, name: str, finished: bool) -> PlannedStep:
    return row._replace(name=name, to_see=0, state="finished") if finished else row._replace(name=name)


def _training(parser: ConfigParser, name: str, run_id: str) -> PlannedStep:
    checkpoint = ["checkpoint"] if "@weights" in parser.get(run_id) else []
    starts, images = _starts(parser, [*_STARTS, *checkpoint]), _count(parser, "train::dataset::data")
    try:
        epochs: int | str = int(parser.get_parsed_content("train::trainer::max_epochs"))
    except (RuntimeError, ValueError):  # the images are not known yet, from which they may follow
        epochs = UNKNOWN if parser.get("max_iterations") else int(parser.get_parsed_content("max_epochs"))
    done = _epochs_done(Path(parser.get_parsed_content("ckpt_dir")))
    if isinstance(images, str) or isinstance(epochs, str):
        return PlannedStep(name, images, epochs, UNKNOWN, UNKNOWN, _state(done, epochs), starts)
    length = max(1, images // int(parser.get_parsed_content("batch_size")))
    left = max(0, epochs - done)
    return PlannedStep(name, images, epochs, epochs * length, left * images, _state(done, epochs), starts)


def _epochs_done(folder: Path) -> int:
    """Epochs of the training that a folder holds; one that has ended, perhaps early, has none to come."""
    stored = CheckpointFile(folder / CHECKPOINT).load()
    if stored is None:
        return 0
    trainer = stored["trainer"]
    return int(trainer["max_epochs"] if (folder / LAST).is_file() else trainer["iteration"] // trainer["epoch_length"])


def _state(done: int, epochs: int | str) -> str:
    if done and done == epochs:
        return "finished"
    return f"goes on after epoch {done}" if done else "begins"


def _scored(parser: ConfigParser, name: str, place: str) -> PlannedStep:
    images = _count(parser, place)
    return PlannedStep(name, images, to_see=images, starts_from=_starts(parser, ["checkpoint"]))


def _count(parser: ConfigParser, place: str) -> int | str:
    try:
        return len(parser.get_parsed_content(place))
    except (RuntimeError, ValueError):  # files that a step before writes are not there yet
        return UNKNOWN


def _starts(parser: ConfigParser, names: Sequence[str]) -> str:
    """Files that a step begins with, and which of them are not there yet."""
    found = []
    for name in names:
        path = parser.get_parsed_content(name) if parser.get(name) is not None else None
        if path is not None:
            found.append(os.fspath(path) + ("" if os.path.exists(path) else " (to come)"))
    return ", ".join(found)


def _changed(parser: ConfigParser, **settings: Any) -> ConfigParser:
    """A copy of a configuration with other settings."""
    changed = ConfigParser(copy.deepcopy(parser.get()))
    changed.locator = parser.locator  # which has looked for all components already
    changed.update(settings)
    return changed


def _bundle(name: str, step: Mapping[str, Any], parser: ConfigParser) -> ConfigParser:
    """The configuration that a step of another bundle has."""
    files = bundle_files(name)
    inner = ConfigParser({})
    inner.locator = parser.locator
    for config in step["configs"]:
        for key, value in files[f"configs/{Path(config).name}"].items():
            merge_kv(inner, key, value)
    inner.update(step["overrides"])
    return inner


def _short(place: str) -> str:
    return place.rpartition("::")[2]


def _table(steps: list[PlannedStep]) -> str:
    """Rows with aligned columns, numbers to the right."""
    head = [name.replace("_", " ") for name in PlannedStep._fields]
    rows = [head, *([f"{cell:,}" if isinstance(cell, int) else cell for cell in step] for step in steps)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        words = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([words[0], *cells[1:5], *words[5:]]).rstrip())
    return "\n".join(lines)
