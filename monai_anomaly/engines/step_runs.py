# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs of bundles one after the other in this process, each only if it is not finished."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from .. import __version__
from ..utils import file_mark, write_json

JOB_FILE = "job.json"
logger = logging.getLogger(__name__)


def run_steps(job: Mapping[str, Any]) -> None:
    """Run the steps of a job; steps that are finished already are skipped.

    A step is finished when ``job.json`` holds the fingerprint of its settings and data, and the ``results`` that it
    names are there; a step that names none is not run again for a file that is gone. A training that was killed goes on
    from its own checkpoint; one that was complete writes its weights again from there.

    Args:
        job: ``folder``, where ``job.json`` is kept, and ``steps``, each with ``configs`` (bundle configuration files),
            ``overrides``, among them ``output_dir`` (another for each step) and ``datalist``, ``origin``, to be noted
            beside the result, and perhaps ``results``, files that it leaves, ``uses``, files it depends on, and
            ``key``, by which ``job.json`` knows the step, where two of them write into one folder.

    Raises:
        ValueError: when a file that a step uses is missing.
    """
    status_file = Path(job["folder"]) / JOB_FILE
    status = json.loads(status_file.read_text(encoding="utf-8")) if status_file.is_file() else {}
    fingerprint = ""
    for number, step in enumerate(job["steps"], 1):
        key = step.get("key", step["overrides"]["output_dir"])
        fingerprint = _fingerprint(step, fingerprint)  # what follows a changed training has changed too
        left = all(Path(result).is_file() for result in step.get("results", []))
        finished = left and status.get(key, {}).get("fingerprint") == fingerprint
        state = "finished before" if finished else "begins"
        logger.info("step %d of %d, %s: %s", number, len(job["steps"]), key, state)
        if finished:
            continue
        start = time.monotonic()
        workflow = ConfigWorkflow(config_file=step["configs"], workflow_type="train", **step["overrides"])
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        status[key] = {
            "fingerprint": fingerprint,
            "seconds": round(time.monotonic() - start, 1),
            "origin": step["origin"],
        }
        write_json(status_file, status)


class BundleSteps:
    """Steps that another bundle takes before this one's training, such as the first stage of a method of two.

    The other bundle is made from its recipe, so that the folder of this one is all that is needed.

    Args:
        bundle: name of the recipe.
        output_dir: folder of the steps, each of which writes into a folder of its own name, and of the bundle.
        steps: by name: ``configs``, names of configuration files such as ``["train", "evaluate"]``, ``settings`` of its
            own, where None leaves what these files say, and ``results``, files that it leaves: names in its folder, or
            absolute paths.
        settings: of all steps, as on the command line of ``monai.bundle run``.
        uses: files that all steps depend on, such as weights they start from; None is none. Steps are taken again when
            their content has changed.

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
        self.output_dir = Path(output_dir).resolve()
        self.steps = dict(steps)
        self.settings = dict(settings)
        self.uses = [os.fspath(file) for file in uses if file is not None]

    def run(self) -> None:
        """Make the bundle and run the steps that are not finished.

        Raises:
            ValueError: in a distributed run, whose processes would all write the same files; when a file is missing.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(f"the steps of {self.bundle} are for one process: leave out torchrun")
        parent = self.output_dir / "bundles"
        build = [sys.executable, "-m", "monai_anomaly.bundle", "build", self.bundle, "--output-dir", str(parent)]
        paths = os.pathsep.join(path for path in sys.path if path)  # what this process can import, the other can
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": paths})
        root = parent / self.bundle
        run_steps({"folder": self.output_dir, "steps": [self._step(root, name) for name in self.steps]})

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


def _fingerprint(step: Mapping[str, Any], before: str) -> str:
    """Hash of what a step depends on: version, the step before, its settings, configuration files, datalist, files."""
    digest = hashlib.sha256((__version__ + before + json.dumps(step["overrides"], sort_keys=True)).encode())
    for path in [*step["configs"], step["overrides"]["datalist"]]:
        digest.update(Path(path).read_bytes())
    for path in step.get("uses", []):
        digest.update(used_mark(path).encode())
    return digest.hexdigest()


def used_mark(path: str | os.PathLike[str]) -> str:
    """:func:`~monai_anomaly.utils.file_mark` of a file that a step uses.

    Raises:
        ValueError: when it is missing.
    """
    if (mark := file_mark(path)) is None:
        raise ValueError(f"{path} is not there: run the training first that writes it")
    return mark
