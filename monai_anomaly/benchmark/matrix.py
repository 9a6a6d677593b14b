# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import sample_dir
from ..data.convert_csv import convert_csv
from ..data.datalist import validate_datalist
from ..data.unlabeled_pool import check_draw, draw_datalist
from .job import Job, Step
from .matrix_file import read_matrix_file

_INDEX_KEYS, _DATALIST_KEYS = {"index", "where", "where_eval", "extra"}, {"datalist", "dataset_dir"}
_DATASET_KEYS = _INDEX_KEYS | _DATALIST_KEYS | {"unlabeled", "seeds", "overrides"}
_UNLABELED_KEYS = {"ratio", "size", "compat", "without"}
_TRAINING_KEYS = {"bundle", "overrides", "configs", "uses", "evaluations", "ignores_unlabeled"}


@dataclass(frozen=True)
class DataSet:
    """One data set of a matrix; one that is to be drawn with several ratios gives several.

    Attributes:
        name: such as ``kermany``, or ``kermany@0.2`` with one of several ratios.
        base: name in the file.
        ratio: share of anomalous images among the unlabeled ones, where there are several.
        content: what the file says, with one ratio.
    """

    name: str
    base: str
    ratio: float | None
    content: Mapping[str, Any]

    def source(self, with_unlabeled: bool = True) -> dict[str, Any]:
        """Which images it has; without the drawing of unlabeled ones for a training that does not look at them."""
        left_out = {"seeds", "overrides"} | (set[str]() if with_unlabeled else {"unlabeled"})
        return {key: value for key, value in self.content.items() if key not in left_out}


@dataclass(frozen=True)
class Matrix:
    """Methods x data sets x seeds, read from a JSON file; see ``bench/d2ue_table2.json`` for one.

    Attributes:
        name: title of the table.
        datasets: by name: ``index`` (a CSV below the data folder) with ``where``, ``where_eval`` and ``extra`` as in
            ``monai_anomaly.data convert-csv``; or ``datalist``, a datalist as ``convert-folder`` writes it, and
            ``dataset_dir``, the folder its paths are relative to (default: its own), both relative to the data folder,
            where one is given; or nothing of these for the embedded sample; ``unlabeled``, how the unlabeled
            images are drawn (``ratio``, one or a list of them, ``size``, ``compat``, ``without``; None: not at all);
            ``seeds``; ``overrides``.
        trainings: by name: ``bundle``, a recipe's name, or a bundle's folder as a path with a slash, and ``overrides``;
            ``configs``, the bundle's configuration files, or several lists of them for several steps; ``uses``, by name
            of a setting: a training and a file in its folder; ``evaluations``, those that it has (default: all);
            ``ignores_unlabeled``: it does not look at unlabeled images, so that all ratios share one run.
        evaluations: by name: settings of an evaluation, and ``configs``.
        rows: rows of the table, each ``label``, and for every column a training and an evaluation.
        compare_with: label of the row that all others are compared with over the seeds.
    """

    name: str
    datasets: Mapping[str, Mapping[str, Any]]
    trainings: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    rows: list[Mapping[str, Any]]
    compare_with: str | None = None

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Matrix:
        """Read a matrix file.

        Raises:
            ValueError: when a key is missing or unknown, or a row or a training names something that is not there; with
                what to write.
        """
        matrix = Matrix(**read_matrix_file(path))
        try:
            matrix.check()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return matrix

    def check(self) -> None:
        """Look at all names.

        Raises:
            ValueError: when a key is unknown, or a row or a training names something that is not there.
        """
        for name, source in self.datasets.items():
            if set(source) - _DATASET_KEYS or "seeds" not in source:
                raise ValueError(
                    f"data set {name!r} needs seeds and may have {sorted(_DATASET_KEYS)}, got {sorted(source)}."
                )
            _check_source(name, source)
            draw = source.get("unlabeled") or {}
            if set(draw) - _UNLABELED_KEYS:
                raise ValueError(f"data set {name!r}: unlabeled may have {sorted(_UNLABELED_KEYS)}, got {draw}.")
            try:
                check_draw(draw.get("ratio"), draw.get("size"), draw.get("compat"))
            except ValueError as error:
                raise ValueError(f"data set {name!r}: {error}.") from error
        for name in self.trainings:
            self._check_training(name)
        for row in self.rows:
            for column, (training, evaluation) in row["cells"].items():
                if training not in self.trainings or evaluation not in self._evaluations(training):
                    raise ValueError(
                        f"row {row['label']!r}, column {column!r} names nothing: {training}, {evaluation}."
                    )
        labels = [row["label"] for row in self.rows]
        if self.compare_with is not None and self.compare_with not in labels:
            raise ValueError(f"compare_with must be the label of a row, one of {labels}, got {self.compare_with!r}.")

    def _check_training(self, name: str) -> None:
        settings = self.trainings[name]
        if set(settings) - _TRAINING_KEYS or "bundle" not in settings:
            raise ValueError(
                f"training {name!r} needs bundle and may have {sorted(_TRAINING_KEYS)}, got {sorted(settings)}."
            )
        if missing := [key for key in settings.get("evaluations", []) if key not in self.evaluations]:
            raise ValueError(f"training {name!r} names evaluations that are not there: {missing}.")
        try:
            Step.read(settings.get("configs", ["train"]))
        except ValueError as error:
            raise ValueError(f"training {name!r}: {error}.") from error
        for setting, source in settings.get("uses", {}).items():
            if len(source) != 2 or source[0] not in self.trainings:
                raise ValueError(
                    f"training {name!r} must give {setting!r} as [training, file in its folder], one of "
                    f"{list(self.trainings)}, got {source!r}."
                )
            if name in self._all_sources(source[0]):
                raise ValueError(
                    f"training {name!r} uses {source[0]!r}, which uses {name!r}: one of them must be first."
                )
            if settings.get("ignores_unlabeled") and not self.trainings[source[0]].get("ignores_unlabeled"):
                raise ValueError(f"training {name!r} ignores unlabeled images, so must {source[0]!r}, which it uses.")

    def _all_sources(self, training: str) -> set[str]:
        """The training, what it uses, what that uses, and so on."""
        found, waiting = set[str](), [training]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                uses = self.trainings.get(name, {}).get("uses", {})
                waiting += [source[0] for source in uses.values()]
        return found

    def _evaluations(self, training: str) -> dict[str, Mapping[str, Any]]:
        names = self.trainings[training].get("evaluations", list(self.evaluations))
        return {name: self.evaluations[name] for name in names if name in self.evaluations}

    def data_sets(self) -> list[DataSet]:
        """All data sets, one for each ratio."""
        found = []
        for base, content in self.datasets.items():
            draw = content.get("unlabeled") or {}
            if not isinstance(draw.get("ratio"), list):
                found.append(DataSet(base, base, None, content))
                continue
            for ratio in draw["ratio"]:
                one = {**content, "unlabeled": {**draw, "ratio": ratio}}
                found.append(DataSet(f"{base}@{ratio:g}", base, ratio, one))
        return found

    def jobs(self) -> list[Job]:
        """All jobs, data set by data set, each after those whose files it uses."""
        found: dict[Path, Job] = {}
        waiting = list(self.jobs_by_cell().values())[::-1]
        while waiting:
            job = waiting[-1]
            first = [source for source, _ in job.uses.values() if source.folder not in found]
            if first:
                waiting += first
            else:
                found.setdefault(waiting.pop().folder, job)
        return list(found.values())

    def jobs_by_cell(self) -> dict[tuple[str, str, int], Job]:
        """Jobs by name of the data set, training and seed; sets of several ratios share some of them."""
        made: dict[tuple[str, str, int], Job] = {}  # by the name of the data set that a job really has
        return {
            (data.name, training, seed): self._job(data, training, seed, made)
            for data in self.data_sets()
            for seed in data.content["seeds"]
            for training in self.trainings
        }

    def _job(self, data: DataSet, training: str, seed: int, made: dict[tuple[str, str, int], Job]) -> Job:
        settings = self.trainings[training]
        ignores = bool(settings.get("ignores_unlabeled"))
        name = data.base if ignores else data.name
        if (name, training, seed) in made:
            return made[name, training, seed]
        uses = {
            setting: (self._job(data, source, seed, made), path)
            for setting, (source, path) in settings.get("uses", {}).items()
        }
        job = Job(
            name,
            training,
            seed,
            settings["bundle"],
            {**settings.get("overrides", {}), **data.content.get("overrides", {}), "seed": seed},
            self._evaluations(training),
            data.source(with_unlabeled=not ignores),
            tuple(Step.read(settings.get("configs", ["train"]))),
            uses,
        )
        return made.setdefault((name, training, seed), job)

    def prepare(
        self, data_dir: str | os.PathLike[str] | None, output_dir: str | os.PathLike[str]
    ) -> dict[str, dict[str, str]]:
        """Write the datalist of every data set, and of every seed where the unlabeled images are drawn.

        Args:
            data_dir: folder that the indices are in.
            output_dir: folder of the matrix; datalists go into ``datalists``.

        Returns:
            ``datalist`` and ``dataset_dir`` by name (:attr:`Job.data`), as a bundle takes them.

        Raises:
            ValueError: when a data set needs a folder that is not given, or there are too few unlabeled images.
        """
        folder = Path(output_dir) / "datalists"
        paths = {name: self._write_datalist(name, data_dir, folder) for name in self.datasets}
        bases = {data.name: data.base for data in self.data_sets()}
        for job in self.jobs():
            draw = job.source.get("unlabeled")
            if not draw or job.data in paths:
                continue
            whole = paths[bases[job.dataset]]
            path = folder / f"{job.data}.json"
            draw_datalist(whole["datalist"], path, **{"seed": job.seed, **draw}, base_dir=whole["dataset_dir"])
            paths[job.data] = {**whole, "datalist": str(path)}
        return paths

    def _write_datalist(self, name: str, data_dir: str | os.PathLike[str] | None, folder: Path) -> dict[str, str]:
        source = self.datasets[name]
        if "datalist" in source:
            return _given_datalist(source, Path(data_dir or ".").resolve())
        if "index" not in source:
            return {"datalist": str(Path(sample_dir()) / "datalist.json"), "dataset_dir": str(sample_dir())}
        if data_dir is None:
            raise ValueError(
                f"data set {name!r} is not embedded: give the folder that holds {source['index']} with --data."
            )
        path = folder / f"{name}.json"
        index = Path(data_dir).resolve() / source["index"]
        options = {key: source[key] for key in ("where", "where_eval", "extra") if key in source}
        # targets of unlabeled images, which loading takes away, are for drawing and for the purity of pseudo-labels
        convert_csv(index, path, base_dir=index.parent, unlabeled_targets="unlabeled" in source, **options)
        return {"datalist": str(path), "dataset_dir": str(index.parent)}


def _check_source(name: str, source: Mapping[str, Any]) -> None:
    if ("datalist" in source and set(source) & _INDEX_KEYS) or ("dataset_dir" in source and "datalist" not in source):
        raise ValueError(
            f"data set {name!r} needs a datalist (and its dataset_dir), or an index (and which rows of it), or neither "
            f"for the embedded sample, got {sorted(source)}."
        )


def _given_datalist(source: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """A datalist that is there already, and the folder that its paths are relative to."""
    path = folder / source["datalist"]
    base = folder / source["dataset_dir"] if "dataset_dir" in source else path.parent
    validate_datalist(path, base)
    return {"datalist": str(path), "dataset_dir": str(base)}
