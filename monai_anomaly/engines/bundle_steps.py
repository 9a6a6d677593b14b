# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of other bundles as steps of a bundle's own run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from ..utils import check_output
from .step_runs import run_steps

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LIVE = ("$", "@", "%")


class BundleSteps:
    """Steps that another bundle takes before this one's training, such as the first stage of a method of two.

    The other bundle is made from its recipe, anew each time, so that the folder of this one is all that is needed and
    nothing but the recipe's own files is run. Settings are handed over as plain data: MONAI would evaluate a text that
    begins with ``$``, ``@`` or ``%``, and whoever has read the configuration has not read that text.

    Args:
        bundle: name of the recipe.
        output_dir: folder of the steps, each of which writes into a folder of its own name, and of the bundle.
        steps: by name: ``configs``, names of configuration files such as ``["train", "evaluate"]``, ``settings`` of its
            own, where None leaves what these files say, and ``results``, files that it leaves: names in its folder, or
            absolute paths.
        settings: of all steps, by the name of a top-level setting of the other bundle: None, numbers, texts, devices,
            and lists of these.
        uses: files that all steps depend on, such as weights they start from; None is none. Steps are taken again when
            their content has changed.

    Raises:
        ValueError: when a name or a setting is not as above.

    Reference:
        see :func:`run_steps` for what is skipped and what is done again.
    """

    def __init__(
        self,
        bundle: str,
        output_dir: str | os.PathLike[str],
        steps: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
        uses: Sequence[str | os.PathLike[str] | None] = (),
    ) -> None:
        self.bundle = bundle
        self.output_dir = check_output(output_dir).resolve()
        self.steps = dict(steps)
        self.settings = dict(settings)
        self.uses = [os.fspath(file) for file in uses if file is not None]
        _check_names("bundle", [bundle])
        _check_names("steps", self.steps)
        check_settings(self.settings)
        for step in self.steps.values():
            _check_names("configs", step["configs"])
            check_settings(step.get("settings", {}))

    def run(self) -> None:
        """Make the bundle and run the steps that are not finished.

        Raises:
            ValueError: in a distributed run, whose processes would all write the same files; when a file is missing.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(f"the steps of {self.bundle} are for one process: leave out torchrun")
        self._build()
        run_steps(self.job(), _run)

    def job(self) -> dict[str, Any]:
        """What :func:`run_steps` takes; the bundle need not be made yet."""
        root = self.output_dir / "bundles" / self.bundle
        return {"folder": self.output_dir, "steps": [self._step(root, name) for name in self.steps]}

    def _build(self) -> None:
        parent = check_output(self.output_dir / "bundles")
        # whatever else lies there was not made by the recipe
        shutil.rmtree(parent / self.bundle / "configs", ignore_errors=True)
        build = [sys.executable, "-m", "monai_anomaly.bundle", "build", self.bundle, "--output-dir", str(parent)]
        paths = os.pathsep.join(path for path in sys.path if path)  # what this process can import, the other can
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": paths})

    def _step(self, root: Path, name: str) -> dict[str, Any]:
        step, folder = self.steps[name], self.output_dir / name
        own = {key: value for key, value in step.get("settings", {}).items() if value is not None}
        own |= {"bundle_root": str(root), "output_dir": str(folder)}
        return {
            "configs": [str(root / "configs" / f"{config}.json") for config in step["configs"]],
            "overrides": self.settings | own,
            "origin": None,
            "uses": self.uses,
            "results": [str(folder / result) for result in step.get("results", [])],
        }


def _run(step: Mapping[str, Any]) -> None:
    check_settings(step["overrides"])
    _check_known(step["overrides"], step["configs"])
    workflow = ConfigWorkflow(config_file=step["configs"], workflow_type="train", **step["overrides"])
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that MONAI would not take as the plain data that they are.

    Args:
        settings: by name of a top-level setting.

    Raises:
        ValueError: naming the setting.
    """
    _check_names("settings", settings)
    for name, value in settings.items():
        _check_plain(name, value)


def _check_known(settings: Mapping[str, Any], configs: Sequence[str]) -> None:
    """Refuse what is no setting of these files: a workflow has arguments of its own, such as a logging file."""
    known = {name for config in configs for name in ConfigParser.load_config_file(config)}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(
            f"{', '.join(unknown)} of a step is no setting of {', '.join(map(str, configs))}: leave it out"
        )


def _check_plain(name: str, value: Any) -> None:
    if isinstance(value, str) and value.startswith(_LIVE):
        raise ValueError(
            f"setting {name} of a step must be plain data, and not begin with {', '.join(_LIVE)}, got {value[:60]!r}: "
            "MONAI would evaluate it; write a path as ./NAME"
        )
    if isinstance(value, list | tuple):
        for item in value:
            _check_plain(name, item)
    elif not (value is None or isinstance(value, str | bool | int | float | torch.device)):
        raise ValueError(
            f"setting {name} of a step must be text, a number, a device or a list of these, got {type(value).__name__}"
        )


def _check_names(what: str, names: Any) -> None:
    if isinstance(names, str) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise ValueError(f"{what} of steps of a bundle must be plain names such as 'train', got {list(names)!r}")
