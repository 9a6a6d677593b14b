# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRAIN, EVALUATE = ("train",), ("train", "evaluate")


@dataclass(frozen=True)
class Step:
    """One run of a bundle.

    Attributes:
        configs: names of its configuration files, merged in this order.
        overrides: settings of this step alone.
    """

    configs: Sequence[str] = TRAIN
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(content: Any) -> list[Step]:
        """Steps of a training as a matrix file gives them: names of files, or one list or dictionary for each step.

        Raises:
            ValueError: for anything else.
        """
        if isinstance(content, list) and content and all(isinstance(name, str) for name in content):
            content = [content]
        entries = content if isinstance(content, list) else []
        steps: list[Any] = [{"configs": entry} if isinstance(entry, list) else entry for entry in entries]
        if not steps or not all(
            isinstance(step, dict) and step.get("configs") and not set(step) - {"configs", "overrides"}
            for step in steps
        ):
            raise ValueError(
                'configs must be names of files such as ["train"], or a list of steps, each such a list or '
                f'{{"configs": names, "overrides": settings}}, got {content!r}'
            )
        return [Step(tuple(step["configs"]), step.get("overrides", {})) for step in steps]


@dataclass(frozen=True)
class Job:
    """One training and the evaluations of its weights.

    Attributes:
        dataset: name of the data set.
        training: name of the training.
        seed: seed of weights, batches and, where the unlabeled images are drawn, of these.
        bundle: recipe the bundle is built from.
        overrides: settings of the training, as on the command line of ``monai.bundle run``; those of the data set, too.
        evaluations: settings that each evaluation adds, by its name, and perhaps ``configs``.
        source: which images of which index the data set has.
        steps: what the training runs.
        uses: by name of a setting: the job one of whose files is its value, and where that file is in its folder.
    """

    dataset: str
    training: str
    seed: int
    bundle: str
    overrides: Mapping[str, Any]
    evaluations: Mapping[str, Mapping[str, Any]]
    source: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Step] = (Step(),)
    uses: Mapping[str, tuple[Job, str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the job writes, below the folder of the whole matrix."""
        return Path(self.dataset) / self.training / f"seed{self.seed}"

    @property
    def data(self) -> str:
        """Name of its datalist: each seed draws its own unlabeled images."""
        return f"{self.dataset}/seed{self.seed}" if self.source.get("unlabeled") else self.dataset

    def evaluation(self, name: str) -> Step:
        """What an evaluation runs."""
        settings = dict(self.evaluations[name])
        return Step(tuple(settings.pop("configs", EVALUATE)), settings)

    def origin(self, evaluation: str) -> dict[str, Any]:
        """All that the matrix says about one evaluation of this job, as it stands beside the result."""
        return self._training_origin() | {"evaluation": dict(self.evaluations[evaluation])}

    def _training_origin(self) -> dict[str, Any]:
        said: dict[str, Any] = {"bundle": self.bundle, "source": dict(self.source), "training": dict(self.overrides)}
        if list(self.steps) != [Step()]:
            said["steps"] = [{"configs": list(step.configs), "overrides": dict(step.overrides)} for step in self.steps]
        if self.uses:
            said["uses"] = {
                setting: {"file": f"{job.folder.as_posix()}/{path}", "of": job._training_origin()}
                for setting, (job, path) in self.uses.items()
            }
        return said
