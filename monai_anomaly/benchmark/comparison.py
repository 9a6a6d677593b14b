# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Several methods on one datalist: a matrix of one data set, and the best of them against each other one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data import load_datalist
from ..functional.bootstrap import percentile_interval
from ..utils import Keys, read_csv
from .matrix import Matrix
from .plan import first_id
from .results import draw_runs

DATASET, COLUMN = "images", "score"
METRIC = "image_auroc"
_ROUNDING = 1e-12  # equal values, computed of other scores, may differ by so much


class Method(NamedTuple):
    """One method of a comparison.

    Attributes:
        bundle: a recipe's name, or a bundle's folder as a path with a slash.
        folder: where its configuration files can be read.
        configs: those that its training merges, in their order.
    """

    bundle: str
    folder: Path
    configs: Sequence[str]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.folder.name

    def read(self, config: str) -> dict[str, Any]:
        """Content of one of its configuration files."""
        content: dict[str, Any] = json.loads((self.folder / "configs" / f"{config}.json").read_text(encoding="utf-8"))
        return content

    def said_by_training(self, given: Iterable[str] = ()) -> dict[str, Any]:
        """What its training's configurations say otherwise than ``train``, which an evaluation must know: a score.

        Args:
            given: names of settings that are left out, since they are given.
        """
        known = self.read("train")
        said = {key: value for config in self.configs[1:] for key, value in self.read(config).items()}
        plain = {key: value for key, value in said.items() if isinstance(value, str | int | float | bool)}
        ours = {*self.read("evaluate"), *given, "run"}
        return {
            key: value for key, value in plain.items() if key in known and key not in ours and "@" not in str(value)
        }


def comparison_matrix(
    methods: Sequence[Method],
    datalist: str | os.PathLike[str] | None = None,
    dataset_dir: str | os.PathLike[str] | None = None,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
) -> Matrix:
    """The matrix of a comparison: each method trained as a whole, and its maps saved.

    Args:
        methods: what to compare.
        datalist: the images; None: the embedded sample.
        dataset_dir: folder its paths are relative to; None: its own.
        seeds: each method is trained with each of them.
        settings: as on the command line of ``monai.bundle run``; each method takes those that it has.

    Raises:
        ValueError: when two methods have one name, a setting is one of none, or the test images are of one class.
    """
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise ValueError(f"methods must have different names, got {', '.join(names)}")
    given = dict(settings or {})
    known = {method.name: _settings(method) for method in methods}
    if unknown := [key for key in given if not any(first_id(key) in keys for keys in known.values())]:
        raise ValueError(f"none of {', '.join(names)} has a setting {', '.join(unknown)}: see the README of a bundle")
    own = {name: {key: value for key, value in given.items() if first_id(key) in keys} for name, keys in known.items()}
    source: dict[str, Any] = {"seeds": list(seeds)}
    if datalist is not None:
        source["datalist"] = os.path.abspath(datalist)
        source["dataset_dir"] = os.path.abspath(dataset_dir or os.path.dirname(source["datalist"]))
        _check_classes(source)
    trainings = {
        method.name: {
            "bundle": method.bundle,
            "configs": [list(method.configs)],
            "overrides": own[method.name],
            "evaluations": [method.name],
        }
        for method in methods
    }
    evaluations = {method.name: {"save_maps": True} | method.said_by_training(given) for method in methods}
    rows: list[Mapping[str, Any]] = [{"label": name, "cells": {COLUMN: [name, name]}} for name in names]
    matrix = Matrix("comparison", {DATASET: source}, trainings, evaluations, rows)
    matrix.check()
    return matrix


def _check_classes(source: Mapping[str, Any]) -> None:
    """Refuse, before anything is trained, test images of which no method could be called better."""
    items = load_datalist(source["datalist"], "testing", base_dir=source["dataset_dir"])
    found = {int(bool(item[Keys.TARGET])) for item in items if item.get(Keys.TARGET) is not None}
    if missing := [name for name, target in (("healthy", 0), ("anomalous", 1)) if target not in found]:
        raise ValueError(
            f"the section testing of {source['datalist']} has no image that is {' or '.join(missing)} by its target: "
            "methods are compared by how they tell both apart; add such images, or use train and evaluate"
        )


def _settings(method: Method) -> set[str]:
    return {first_id(key) for config in (*method.configs, "evaluate") for key in method.read(config)}


def evaluation_folders(matrix: Matrix, output_dir: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """By method, the folders of its evaluations, one a seed."""
    jobs = matrix.jobs_by_cell()
    seeds = matrix.datasets[DATASET]["seeds"]
    return {
        name: [Path(output_dir) / jobs[DATASET, name, seed].folder / name for seed in seeds]
        for name in matrix.trainings
    }


def compare_with_best(folders: Mapping[str, Sequence[Path]], num_draws: int = 1000) -> dict[str, Any]:
    """The best method and, for each other one, how much better it is, over the same patients.

    Args:
        folders: by method, the folders of its evaluations, with ``scores.csv``.
        num_draws: bootstrap draws.

    Raises:
        ValueError: when the methods have not scored the same images.

    Returns:
        ``best``, and ``differences`` by method: ``value`` of the best less its own, ``low`` and ``high``, the ends of
        the 95 % interval, and ``share`` of the draws in which the best one is ahead; these are None without draws.
    """
    runs = {name: [read_csv(folder / "scores.csv") for folder in entries] for name, entries in folders.items()}
    images = {name: [sorted(row["image"] for row in rows) for rows in scored] for name, scored in runs.items()}
    first = next(iter(images.values()))[0]
    if different := [name for name, scored in images.items() if any(names != first for names in scored)]:
        raise ValueError(f"{', '.join(different)} scored other images: compare into a new folder")
    drawn = {name: draw_runs(scored, num_draws) for name, scored in runs.items()}
    means = {name: sum(values[METRIC]) / len(values[METRIC]) for name, (values, _) in drawn.items()}
    best = max(means, key=lambda name: means[name])
    differences = {}
    for name in (name for name in means if name != best):
        draws = drawn[best][1][METRIC] - drawn[name][1][METRIC]
        interval = percentile_interval(means[best] - means[name], draws)
        share = float((draws > _ROUNDING).double().mean()) if len(draws) else None
        differences[name] = {**interval, "share": share}
    return {"best": best, "differences": differences}
