# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from tqdm import tqdm

from .matrix import Job, Matrix

logger = logging.getLogger(__name__)

_LOG = "log.txt"


def plan(matrix: Matrix, data_dir: str | None, output_dir: str | Path) -> list[dict[str, Any]]:
    """Everything each job runs: plain data, enough to run it anywhere.

    Args:
        matrix: what to run.
        data_dir: folder of the data sets that are not embedded.
        output_dir: folder of the matrix; bundles and datalists are written into it.

    Returns:
        One dictionary a job: ``folder`` and ``steps``, each with ``configs`` (bundle configuration files),
        ``overrides``, and ``origin``, what the matrix says about an evaluation.
    """
    output = Path(output_dir).resolve()
    datalists = matrix.prepare(data_dir, output)
    bundles = {settings["bundle"]: output / "bundles" / settings["bundle"] for settings in matrix.trainings.values()}
    build = [sys.executable, "-m", "monai_anomaly.bundle", "build", *bundles, "--output-dir", str(output / "bundles")]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return [_plan_job(job, bundles[job.bundle], datalists[job.dataset], output / job.folder) for job in matrix.jobs()]


def _plan_job(job: Job, bundle: Path, data: Mapping[str, str], folder: Path) -> dict[str, Any]:
    # the jobs of a data set share one audit
    audit = {"audit_dir": str(folder.parents[1] / "audit")}
    shared = {"bundle_root": str(bundle), **data, **audit, "ckpt_dir": str(folder / "models")}
    train = [str(bundle / "configs" / "train.json")]
    evaluate = [*train, str(bundle / "configs" / "evaluate.json")]
    steps: list[dict[str, Any]] = [
        {"configs": train, "overrides": {**shared, **job.overrides, "output_dir": str(folder)}, "origin": None}
    ]
    steps += [
        {
            "configs": evaluate,
            "overrides": {**shared, **job.overrides, **settings, "output_dir": str(folder / name)},
            "origin": job.origin(name),
        }
        for name, settings in job.evaluations.items()
    ]
    return {"folder": str(folder), "steps": steps}


def command(step: Mapping[str, Any]) -> str:
    """The ``monai.bundle run`` command that does the same as a step."""
    configs = "[" + ",".join(f"'{config}'" for config in step["configs"]) + "]"
    overrides = " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in step["overrides"].items())
    return f'python -m monai.bundle run --config_file "{configs}" {overrides}'


def run_matrix(jobs: list[dict[str, Any]], parallel: int = 1) -> list[str]:
    """Run jobs, each in a process of its own; a job that fails does not stop the others.

    Args:
        jobs: entries of :func:`plan`.
        parallel: number of jobs at a time, which share the machine's cores; small networks want one core each.

    Returns:
        Folders of the jobs that failed; their ``log.txt`` says why.

    Raises:
        ValueError: when ``parallel`` is not positive.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be positive, got {parallel}.")
    _audit_once(jobs)
    threads = max(1, (os.cpu_count() or 1) // parallel)
    with ThreadPoolExecutor(parallel) as pool:
        codes = list(tqdm(pool.map(partial(_run_apart, threads=threads), jobs), "jobs", len(jobs), unit="job"))
    failed = [job["folder"] for job, code in zip(jobs, codes, strict=True) if code != 0]
    for folder in failed:
        logger.error("failed: %s, see %s", folder, Path(folder) / _LOG)
    return failed


def _audit_once(jobs: list[dict[str, Any]]) -> None:
    """Audit every data set now, as its jobs will ask for it, so that no two of them write the same file."""
    steps = [job["steps"][0] for job in reversed(jobs) if job["steps"]]
    first = {step["overrides"]["audit_dir"]: step for step in steps if "audit_dir" in step["overrides"]}
    for folder, step in first.items():
        parser = ConfigParser()
        parser.read_config(step["configs"])
        parser.update(step["overrides"])
        try:
            parser.get_parsed_content("audit").run()
        except (ValueError, RuntimeError):  # the jobs of this data set fail with the same words, those of others go on
            logger.exception("audit failed: %s", folder)


def _run_apart(job: Mapping[str, Any], threads: int) -> int:
    """Run one job in a new process, which writes to the job's log, and return its exit code."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    worker = [sys.executable, "-m", "monai_anomaly.benchmark", "job"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with open(folder / _LOG, "a", encoding="utf-8") as log:
        process = subprocess.run(
            worker, input=json.dumps(job), text=True, stdout=log, stderr=log, env=environment, check=False
        )
    return process.returncode
