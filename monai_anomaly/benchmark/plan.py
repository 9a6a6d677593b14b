# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..handlers.training_checkpoint import LAST
from .job import Job, Step
from .matrix import Matrix


def plan(matrix: Matrix, data_dir: str | None, output_dir: str | Path) -> list[dict[str, Any]]:
    """Everything each job runs: plain data, enough to run it anywhere.

    Args:
        matrix: what to run.
        data_dir: folder of the data sets that are not embedded.
        output_dir: folder of the matrix; bundles and datalists are written into it.

    Returns:
        One dictionary a job, each after those that it uses: ``folder``, ``after`` (their folders) and ``steps``, each
        with ``configs`` (bundle configuration files), ``overrides``, ``uses`` (files of other jobs), ``results`` (files
        without which it is not finished: weights, files that other jobs use, metrics and scores), ``key``, and
        ``origin``, what the matrix says about an evaluation.

    Raises:
        ValueError: when a bundle is not there, has no such configuration file, or does not know a setting.
    """
    output = Path(output_dir).resolve()
    _make_bundles(list(dict.fromkeys(settings["bundle"] for settings in matrix.trainings.values())), output / "bundles")
    _check_settings(matrix, output)
    datalists = matrix.prepare(data_dir, output)
    jobs = matrix.jobs()
    wanted: dict[Path, list[str]] = {}  # by folder of a job: its files that others use
    for source, path in (use for job in jobs for use in job.uses.values()):
        wanted.setdefault(source.folder, []).append(path)
    return [_plan_job(job, datalists[job.data], wanted.get(job.folder, []), output) for job in jobs]


def _make_bundles(bundles: Sequence[str], folder: Path) -> None:
    """Build the bundles that are named after a recipe, and copy the configuration files of those that are folders."""
    if len({_bundle_name(bundle) for bundle in bundles}) < len(bundles):
        raise ValueError(f"bundles must have different names, got {', '.join(bundles)}: rename a folder.")
    names = [bundle for bundle in bundles if not _is_folder(bundle)]
    if names:
        build = [sys.executable, "-m", "monai_anomaly.bundle", "build", *names, "--output-dir", str(folder)]
        done = subprocess.run(build, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"bundles cannot be made: {(done.stderr.splitlines() or ['no reason given'])[-1]}")
    for bundle in set(bundles) - set(names):
        configs = Path(bundle) / "configs"
        if not configs.is_dir():
            raise ValueError(f"{bundle} is not the folder of a bundle: it has no configs.")
        shutil.copytree(configs, folder / _bundle_name(bundle) / "configs", dirs_exist_ok=True)


def _is_folder(bundle: str) -> bool:
    """Whether a bundle is given as a path, not by the name of its recipe."""
    return os.path.basename(bundle) != bundle


def _bundle_name(bundle: str) -> str:
    return Path(bundle).resolve().name if _is_folder(bundle) else bundle


def _plan_job(job: Job, data: Mapping[str, str], wanted: Sequence[str], output: Path) -> dict[str, Any]:
    bundle, folder = output / "bundles" / _bundle_name(job.bundle), output / job.folder
    sources = {setting: str(output / source.folder / path) for setting, (source, path) in job.uses.items()}
    shared = {"bundle_root": str(bundle), **data, **job.overrides, **sources}
    steps: list[dict[str, Any]] = []
    for number, step in enumerate(job.steps):
        own = {"output_dir": str(folder)}
        key = str(folder) if number == 0 else f"{folder}#{number}"
        left = [*_weights(bundle, step, job.overrides), *wanted]  # which step leaves what is wanted, nobody says
        planned = _plan_step(job, step, shared | own, output)
        steps.append(planned | {"uses": list(sources.values()), "key": key, "results": _below(folder, left)})
    for name in job.evaluations:
        step = job.evaluation(name)
        # as if it were made in the folder of the training, whether the bundle has one file of weights or folds
        weights = folder / str(_parsed(bundle, step, job.overrides, "checkpoint", "models/model.pt"))
        own = {"output_dir": str(folder / name)} | ({} if "checkpoint" in sources else {"checkpoint": str(weights)})
        planned = _plan_step(job, step, shared | own, output)
        measured = _below(folder / name, ["metrics.json", "scores.csv"])
        steps.append(planned | {"origin": job.origin(name), "results": measured})
    after = list(dict.fromkeys(str(output / source.folder) for source, _ in job.uses.values()))
    return {"folder": str(folder), "after": after, "steps": steps}


def _plan_step(job: Job, step: Step, settings: Mapping[str, Any], output: Path) -> dict[str, Any]:
    bundle = output / "bundles" / _bundle_name(job.bundle)
    known = _known(bundle, step)
    overrides = {key: value for key, value in settings.items() if first_id(key) in known} | dict(step.overrides)
    # jobs share an audit; what the audit demands depends on what a method does with unlabeled images
    use = str(_parsed(bundle, step, job.overrides, "audit#unlabeled", "ignored"))
    name = "audit" if use == "ignored" else f"audit_{use}"
    seed = [f"seed{job.seed}"] if job.source.get("unlabeled") else []
    overrides["audit_dir"] = str(output.joinpath(job.dataset, name, *seed))
    configs = [str(bundle / "configs" / f"{config}.json") for config in step.configs]
    return {"configs": configs, "overrides": overrides, "origin": None}


def _weights(bundle: Path, step: Step, overrides: Mapping[str, Any]) -> list[str]:
    """Files of weights that a step of a training leaves, below the folder of its job; none where it trains nothing."""
    run = str(_parser(bundle, step, overrides).get("run"))
    if "fold_runs.run()" in run:
        folds = [{"fold": fold} for fold in _parsed(bundle, step, overrides, "fold_runs").folds]
    else:
        folds = [{}] if "trainer.run()" in run else []
    own = [Step(step.configs, {**step.overrides, **fold}) for fold in folds]
    return [os.path.join(_parsed(bundle, each, overrides, "ckpt_dir"), LAST) for each in own]


def _below(folder: Path, files: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(str(folder / file) for file in files))


def _parsed(bundle: Path, step: Step, overrides: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """Value of a setting of a step whose ``output_dir`` is the current folder."""
    parser = _parser(bundle, step, overrides)
    return default if parser.get(name) is None else parser.get_parsed_content(name)


def _parser(bundle: Path, step: Step, overrides: Mapping[str, Any]) -> ConfigParser:
    settings = {key: value for key, value in overrides.items() if key != "seed"} | dict(step.overrides)
    configs = tuple(str(bundle / "configs" / f"{config}.json") for config in step.configs)
    return _read(configs, json.dumps(settings | {"output_dir": "."}))


@lru_cache
def _read(configs: tuple[str, ...], settings: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(list(configs))
    try:
        parser.update(json.loads(settings))
    except (KeyError, TypeError, ValueError) as error:  # the id of a setting leads nowhere
        raise ValueError(f"{configs[-1]} cannot take all of the settings {settings}: {error}") from error
    return parser


def _check_settings(matrix: Matrix, output: Path) -> None:
    """Refuse settings that nothing knows: MONAI would merge them, and the run would go on with the default."""
    everywhere: set[str] = {"seed"}
    for name, job in {job.training: job for job in matrix.jobs()}.items():
        training, bundle = matrix.trainings[name], output / "bundles" / _bundle_name(job.bundle)
        evaluations = {key: job.evaluation(key) for key in job.evaluations}
        known = set[str]().union(*(_known(bundle, step) for step in [*job.steps, *evaluations.values()]))
        everywhere |= known
        place = f"training {name!r} (bundle {job.bundle})"
        _refuse({**training.get("overrides", {}), **training.get("uses", {})}, known, place)
        for step in job.steps:
            _refuse(step.overrides, _known(bundle, step), place)
        for key, step in evaluations.items():
            _refuse(step.overrides, _known(bundle, step), f"{place}, evaluation {key!r}")
    for name, source in matrix.datasets.items():
        _refuse(source.get("overrides", {}), everywhere, f"data set {name!r}")


def _refuse(settings: Mapping[str, Any], known: set[str], place: str) -> None:
    if unknown := [key for key in settings if first_id(key) not in known]:
        raise ValueError(f"{place} has no setting {unknown}: see the README of the bundle for those that it has.")


def _known(bundle: Path, step: Step) -> set[str]:
    """Settings of the configuration files of a step."""
    return _keys(tuple(bundle / "configs" / f"{config}.json" for config in step.configs))


@lru_cache
def _keys(files: Sequence[Path]) -> set[str]:
    for file in files:
        if not file.is_file():
            raise ValueError(f"bundle {file.parents[1].name} has no configuration {file.stem!r}.")
    return {first_id(key) for file in files for key in json.loads(file.read_text(encoding="utf-8"))}


def first_id(name: str) -> str:
    """The setting that an option changes, or changes a part of."""
    return re.split("[#:]", name.removeprefix("+"))[0]
