# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Steps one after the other in this process, each only if it is not finished."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..utils import file_mark, write_json

JOB_FILE = "job.json"
logger = logging.getLogger(__name__)


def run_steps(job: Mapping[str, Any], run: Callable[[Mapping[str, Any]], None]) -> None:
    """Run the steps of a job; steps that are finished already are skipped.

    A step is finished when ``job.json`` holds the fingerprint of its settings and data, and the ``results`` that it
    names are there; a step that names none is not run again for a file that is gone. A training that was killed goes on
    from its own checkpoint; one that was complete writes its weights again from there.

    Args:
        job: ``folder``, where ``job.json`` is kept, and ``steps``, each with ``configs`` (bundle configuration files),
            ``overrides``, among them ``output_dir`` (another for each step) and ``datalist``, ``origin``, to be noted
            beside the result, and perhaps ``results``, files that it leaves, ``uses``, files it depends on, and
            ``key``, by which ``job.json`` knows the step, where two of them write into one folder.
        run: runs a step. Whether its configurations and overrides may be run is for this function to know.

    Raises:
        ValueError: when a file that a step uses is missing.
    """
    status_file = Path(job["folder"]) / JOB_FILE
    status = _read_status(job)
    for number, (step, key, fingerprint, finished) in enumerate(_look_at(job, status), 1):
        state = "finished before" if finished else "begins"
        logger.info("step %d of %d, %s: %s", number, len(job["steps"]), key, state)
        if finished:
            continue
        start = time.monotonic()
        run(step)
        status[key] = {
            "fingerprint": fingerprint,
            "seconds": round(time.monotonic() - start, 1),
            "origin": step["origin"],
        }
        write_json(status_file, status)


def finished_steps(job: Mapping[str, Any]) -> list[bool]:
    """Which steps of a job :func:`run_steps` would skip; nothing is run.

    Args:
        job: as for :func:`run_steps`.
    """
    found: list[bool] = []
    with suppress(OSError, ValueError):  # a file that this step and those after it depend on is still to come
        for *_, finished in _look_at(job, _read_status(job)):
            found.append(finished)
    return found + [False] * (len(job["steps"]) - len(found))


def _read_status(job: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(job["folder"]) / JOB_FILE
    status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return status


def _look_at(job: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, str, bool]]:
    """Each step when its turn has come, its key, its fingerprint and whether it is finished."""
    fingerprint = ""
    for step in job["steps"]:
        key = step.get("key", step["overrides"]["output_dir"])
        fingerprint = _fingerprint(step, fingerprint)  # what follows a changed training has changed too
        left = all(Path(result).is_file() for result in step.get("results", []))
        yield step, key, fingerprint, left and status.get(key, {}).get("fingerprint") == fingerprint


def _fingerprint(step: Mapping[str, Any], before: str) -> str:
    """Hash of what a step depends on: version, the step before, its settings, configuration files, datalist, files."""
    digest = hashlib.sha256(
        (__version__ + before + json.dumps(step["overrides"], sort_keys=True, default=str)).encode()
    )
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
