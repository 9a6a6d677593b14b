# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from tqdm import tqdm

from ..engines.step_runs import run_steps, used_mark
from ..handlers.training_checkpoint import CHECKPOINT
from ..utils import write_json

logger = logging.getLogger(__name__)

_LOG, _USED = "log.txt", "used.json"
_NOT_RUN = -1


def command(step: Mapping[str, Any]) -> str:
    """The ``monai.bundle run`` command that does the same as a step."""
    configs = "[" + ",".join(f"'{config}'" for config in step["configs"]) + "]"
    # MONAI's command line ignores a plain None
    values = {key: "$None" if value is None else str(value) for key, value in step["overrides"].items()}
    overrides = " ".join(f"--{key} {shlex.quote(value)}" for key, value in values.items())
    return f'python -m monai.bundle run --config_file "{configs}" {overrides}'


def run_matrix(jobs: list[dict[str, Any]], parallel: int = 1) -> list[str]:
    """Run jobs, each in a process of its own; a job that fails stops only those that use its files.

    Args:
        jobs: entries of :func:`plan`; one waits for those that its ``after`` names.
        parallel: number of jobs at a time, which share the machine's cores; small networks want one core each.

    Returns:
        Folders of the jobs that failed or were not run because of it; the ``log.txt`` of the former says why.

    Raises:
        ValueError: when ``parallel`` is not positive, or jobs wait for each other.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be positive, got {parallel}.")
    _audit_once(jobs)
    threads = max(1, (os.cpu_count() or 1) // parallel)
    codes: dict[str, int] = {}
    waiting, running = {job["folder"]: job for job in jobs}, dict[Future[int], str]()
    with ThreadPoolExecutor(parallel) as pool, tqdm(desc="jobs", total=len(jobs), unit="job") as bar:
        while waiting or running:
            for folder in _not_to_run(waiting, codes):
                codes[folder] = _NOT_RUN
                bar.update()
            free = parallel - len(running)
            for folder in [name for name, job in waiting.items() if _is_ready(job, waiting, running.values())][:free]:
                running[pool.submit(_run_apart, waiting.pop(folder), threads)] = folder
            if waiting and not running:
                raise ValueError(f"jobs wait for each other: {sorted(waiting)}.")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                codes[running.pop(future)] = future.result()
                bar.update()
    return _report(jobs, codes)


def _is_ready(job: Mapping[str, Any], waiting: Mapping[str, Any], running: Collection[str]) -> bool:
    """Whether nothing that a job uses is still to come; jobs of another call are taken to be finished."""
    return not any(source in waiting or source in running for source in job.get("after", []))


def _not_to_run(waiting: dict[str, dict[str, Any]], codes: Mapping[str, int]) -> list[str]:
    """Take out the jobs that use a file of one that failed, and those that use one of these, and so on."""
    taken: list[str] = []
    while True:
        out = [
            name
            for name, job in waiting.items()
            if any(source in taken or codes.get(source, 0) != 0 for source in job.get("after", []))
        ]
        if not out:
            return taken
        for name in out:
            del waiting[name]
        taken += out


def _report(jobs: list[dict[str, Any]], codes: Mapping[str, int]) -> list[str]:
    failed = [job for job in jobs if codes[job["folder"]] != 0]
    for job in failed:
        folder = job["folder"]
        if codes[folder] == _NOT_RUN:
            sources = [source for source in job["after"] if codes.get(source, 0) != 0]
            logger.error("not run: %s, since it uses what is missing: %s", folder, ", ".join(sources))
        else:
            logger.error("failed: %s, see %s", folder, Path(folder) / _LOG)
    return [job["folder"] for job in failed]


def run_job(job: Mapping[str, Any]) -> None:
    """Run one job in this process; steps that are finished are skipped, one that was killed goes on.

    Where a file that its training uses has changed since, the training starts anew.

    Args:
        job: an entry of :func:`plan`.

    Raises:
        ValueError: when a file that it uses is missing; what it has trained so far stays.
    """
    folder = Path(job["folder"])
    files = {path for step in job["steps"] for path in step.get("uses", [])}
    marks = {os.path.relpath(path, folder): used_mark(path) for path in sorted(files)}
    record = folder / _USED
    if marks:
        if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != marks:
            for checkpoint in folder.rglob(CHECKPOINT):  # a training refuses to go on from other weights or labels
                checkpoint.unlink()
        write_json(record, marks)
    run_steps(job, run_step)


def run_step(step: Mapping[str, Any]) -> None:
    """Run a step of a job: a matrix is its user's own, and may say what a command line may."""
    workflow = ConfigWorkflow(config_file=step["configs"], workflow_type="train", **step["overrides"])
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def _audit_once(jobs: list[dict[str, Any]]) -> None:
    """Audit every data set now, as its jobs will ask for it, so that no two of them write the same file."""
    steps = [step for job in reversed(jobs) for step in reversed(job["steps"])]
    first = {step["overrides"]["audit_dir"]: step for step in steps if "audit_dir" in step["overrides"]}
    for folder, step in reversed(first.items()):
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
