# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import sample_dir
from ..data.convert_csv import convert_csv

_DATASET_KEYS = {"index", "where", "where_eval", "extra", "seeds", "overrides"}
_KEYS = {"name", "datasets", "trainings", "evaluations", "rows"}


@dataclass(frozen=True)
class Job:
    """One training and the evaluations of its weights.

    Attributes:
        dataset: name of the data set.
        training: name of the training.
        seed: seed of weights and batches.
        bundle: recipe the bundle is built from.
        overrides: settings of the training, as on the command line of ``monai.bundle run``.
        evaluations: settings that each evaluation adds, by its name.
        source: which images of which index the data set has.
    """

    dataset: str
    training: str
    seed: int
    bundle: str
    overrides: Mapping[str, Any]
    evaluations: Mapping[str, Mapping[str, Any]]
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the job writes, below the folder of the whole matrix."""
        return Path(self.dataset) / self.training / f"seed{self.seed}"

    def origin(self, evaluation: str) -> dict[str, Any]:
        """All that the matrix says about one evaluation of this job, as it stands beside the result."""
        return {
            "bundle": self.bundle,
            "source": dict(self.source),
            "training": dict(self.overrides),
            "evaluation": dict(self.evaluations[evaluation]),
        }


@dataclass(frozen=True)
class Matrix:
    """Methods x data sets x seeds, read from a JSON file; see ``bench/d2ue_table2.json`` for one.

    Attributes:
        name: title of the table.
        datasets: by name: ``index`` (a CSV below the data folder) with ``where``, ``where_eval`` and ``extra`` as in
            ``monai_anomaly.data convert-csv``, or nothing for the embedded sample; ``seeds``; ``overrides``.
        trainings: by name: ``bundle`` and ``overrides``.
        evaluations: by name: settings of an evaluation.
        rows: rows of the table, each ``label``, and for every column a training and an evaluation.
    """

    name: str
    datasets: Mapping[str, Mapping[str, Any]]
    trainings: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    rows: list[Mapping[str, Any]]

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Matrix:
        """Read a matrix file.

        Raises:
            ValueError: when a key is missing or unknown, or a row names a training or evaluation that is not there.
        """
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if set(content) != _KEYS:
            raise ValueError(f"{path} must have the keys {sorted(_KEYS)}, got {sorted(content)}.")
        matrix = Matrix(**content)
        for name, source in matrix.datasets.items():
            if set(source) - _DATASET_KEYS or "seeds" not in source:
                raise ValueError(
                    f"{path}: data set {name!r} needs seeds and may have {sorted(_DATASET_KEYS)}, got {sorted(source)}."
                )
        for row in matrix.rows:
            for column, (training, evaluation) in row["cells"].items():
                if training not in matrix.trainings or evaluation not in matrix.evaluations:
                    raise ValueError(
                        f"{path}: row {row['label']!r}, column {column!r} names nothing: {training}, {evaluation}."
                    )
        return matrix

    def jobs(self) -> list[Job]:
        """All jobs, data set by data set."""
        return [
            Job(
                dataset,
                training,
                seed,
                settings["bundle"],
                {**settings.get("overrides", {}), **self.datasets[dataset].get("overrides", {}), "seed": seed},
                self.evaluations,
                {key: value for key, value in self.datasets[dataset].items() if key not in ("seeds", "overrides")},
            )
            for dataset in self.datasets
            for seed in self.datasets[dataset]["seeds"]
            for training, settings in self.trainings.items()
        ]

    def prepare(
        self, data_dir: str | os.PathLike[str] | None, output_dir: str | os.PathLike[str]
    ) -> dict[str, dict[str, str]]:
        """Write the datalist of every data set.

        Args:
            data_dir: folder that the indices are in.
            output_dir: folder of the matrix; datalists go into ``datalists``.

        Returns:
            ``datalist`` and ``dataset_dir`` of each data set, as a bundle takes them.

        Raises:
            ValueError: when a data set needs a folder that is not given.
        """
        paths = {}
        for name, source in self.datasets.items():
            if "index" not in source:
                paths[name] = {"datalist": str(Path(sample_dir()) / "datalist.json"), "dataset_dir": str(sample_dir())}
                continue
            if data_dir is None:
                raise ValueError(
                    f"data set {name!r} is not embedded: give the folder that holds {source['index']} with --data."
                )
            path = Path(output_dir) / "datalists" / f"{name}.json"
            index = Path(data_dir).resolve() / source["index"]
            options = {key: source[key] for key in ("where", "where_eval", "extra") if key in source}
            convert_csv(index, path, base_dir=index.parent, **options)
            paths[name] = {"datalist": str(path), "dataset_dir": str(index.parent)}
        return paths
