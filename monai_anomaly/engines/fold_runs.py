# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainings of the folds of an ensemble, each in a process of its own, a number of them at a time."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

from ..utils import atomic_path, check_output, workflows_in_use
from ..utils.output_folder import given_folders

LOG, CONFIGURATION = "log.txt", "all_folds.json"
_CHECKPOINT = Path("models", "checkpoint.pt")  # of monai_anomaly.handlers.TrainingCheckpoint
_MARK = "MONAI_ANOMALY_ENDS_WITH_PARENT"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0


class FoldRuns:
    """Trains the folds of an ensemble: each in a process of its own, as many at a time as the machine has room for.

    A process has the configuration of this one, the options of its command line included, and its own ``fold``. What
    it prints goes to ``fold_K/log.txt`` in ``output_dir``. A fold that fails does not stop the others; but folds that
    were begun before come first, and if one of these fails, as with settings that are not those of its checkpoint, no
    further fold is started. Whatever ends this process, ends the others too (:func:`end_with_parent`); the same command
    goes on where they were.

    For use in the configuration of a bundle: ``run`` reads it from the workflow that calls it.

    Args:
        output_dir: folder of the run; ``all_folds.json``, the configuration, is written there.
        num_folds: number of folds K.
        folds: which of 0 ... K - 1 to train; None (default): all.
        jobs: how many at a time. None (default): one for each GPU, or for each processor core where ``device`` is the
            CPU, or one on any other device. A number that does not depend on what is finished already: the number of
            threads of a process, which its results may depend on in the last digits, stays the same when it goes on.
        device: device of a training as the configuration has it. ``cuda`` without a number: the processes share out
            the GPUs, each sees one.
        run_id: what a process runs of the configuration.

    Raises:
        ValueError: when an argument is outside its range.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        num_folds: int,
        folds: int | Sequence[int] | None = None,
        jobs: int | None = None,
        device: str | torch.device = "cpu",
        run_id: str = "run_fold",
    ) -> None:
        chosen = list(range(num_folds)) if folds is None else [folds] if isinstance(folds, int) else list(folds)
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(num_folds)):
            raise ValueError(
                f"folds must be null (all) or different numbers from 0 to {num_folds - 1} such as [0, 3], got {folds!r}"
            )
        if jobs is not None and (type(jobs) is not int or jobs < 1):
            raise ValueError(f"jobs must be null (the engine decides) or a positive number, got {jobs!r}")
        self.output_dir = check_output(output_dir)
        self.folds = chosen
        self.jobs = jobs
        self.device = torch.device(device)
        self.run_id = run_id

    def run(self) -> None:
        """Train the folds, those that are finished excepted, which end at once.

        Raises:
            ValueError: when the configuration is not one that each fold can be trained with.
            RuntimeError: when folds failed, naming them, their logs and the last line of each.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "all folds are trained by one process that starts the others: leave out torchrun, or give "
                "--fold NUMBER without all_folds.json to train one fold on several GPUs"
            )
        workflow = _workflow_in_use()
        configuration = _configuration(workflow)  # checked before anything is written
        with atomic_path(self.output_dir / CONFIGURATION, configuration=True) as path:
            path.write_text(configuration, encoding="utf-8")
        command = self._command(workflow)
        commands = {fold: [*command, "--fold", str(fold)] for fold in self.folds}
        codes = self.run_commands(commands)
        failed = [fold for fold, code in codes.items() if code != 0]
        if failed:
            lines = [f"  fold {fold}, exit code {codes[fold]}: {self.log(fold)}: {self._last(fold)}" for fold in failed]
            raise RuntimeError(
                f"{len(failed)} of {len(commands)} folds failed; mend the cause and start the same command again, what "
                "is finished stays as it is:\n" + "\n".join(sorted(lines))
            )

    def log(self, fold: int) -> Path:
        """Where the output of a fold goes."""
        return self.output_dir / f"fold_{fold}" / LOG

    def lanes(self) -> list[dict[str, str]]:
        """Environment variables of the processes that run at a time."""
        shared = self.device.type == "cuda" and self.device.index is None
        gpus = _visible_gpus() if shared else list[str]()
        cores = _number_of_cores()
        most = self.jobs or len(gpus) or (cores if self.device.type == "cpu" else 1)
        jobs = min(most, len(self.folds))
        threads = max(1, cores // jobs)
        if os.environ.get("OMP_NUM_THREADS", "").isdigit():
            threads = min(threads, int(os.environ["OMP_NUM_THREADS"]))
        seen = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(jobs)]
        return [{"OMP_NUM_THREADS": str(threads)} | lane for lane in seen]

    def run_commands(self, commands: Mapping[int, Sequence[str]]) -> dict[int, int]:
        """Run a command for each fold, a number of them at a time; return the exit codes of those that were started.

        Args:
            commands: command line by number of the fold.
        """
        begun = {fold for fold in commands if (self.log(fold).parent / _CHECKPOINT).is_file()}
        waiting = sorted(commands, key=lambda fold: fold not in begun)
        running, codes = dict[int, _Running](), dict[int, int]()
        free = self.lanes()[::-1]
        with _sigterm_raises(), tqdm(total=len(commands), desc="folds", unit="fold") as bar:
            try:
                while waiting or running:
                    while waiting and free:
                        fold = waiting.pop(0)
                        running[fold] = self._start(fold, commands[fold], free.pop())
                        bar.set_postfix_str("now " + ", ".join(map(str, running)))
                    time.sleep(_POLL_SECONDS)
                    for fold, code in [(fold, entry.process.poll()) for fold, entry in running.items()]:
                        if code is not None:
                            codes[fold] = code
                            free.append(running.pop(fold).close())
                            bar.update()
                            if code != 0 and fold in begun:
                                waiting.clear()
            finally:
                _end(running.values())
        return codes

    def _start(self, fold: int, command: Sequence[str], lane: dict[str, str]) -> _Running:
        paths = os.pathsep.join(path for path in sys.path if path)  # what this process can import, the others can
        marks = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", _MARK: "1"}
        self.log(fold).parent.mkdir(parents=True, exist_ok=True)
        with open(self.log(fold), "a", encoding="utf-8") as log:
            print(f"\n$ {shlex.join(command)}", file=log, flush=True)
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | marks | lane,
                start_new_session=True,  # Ctrl-C is for this process, which ends the others
            )
        return _Running(process, lane)

    def _command(self, workflow: ConfigWorkflow) -> list[str]:
        """The command line of one fold, but for its number."""
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(self.output_dir / CONFIGURATION)]
        command += ["--run_id", self.run_id, "--init_id", workflow.init_id, "--final_id", workflow.final_id]
        # without these MONAI would look for both beside all_folds.json, where a run may have left anything
        logging = Path(workflow.config_root_path) / "logging.conf"
        command += ["--logging_file", str(logging) if logging.is_file() else "False"]
        if isinstance(workflow.meta_file, str | Path):
            command += ["--meta_file", str(workflow.meta_file)]
        for name, folder in given_folders(workflow).items():
            command += [f"--{name}", str(_as_text(folder))]
        return command

    def _last(self, fold: int) -> str:
        lines = self.log(fold).read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class _Running(NamedTuple):
    process: subprocess.Popen[bytes]
    lane: dict[str, str]

    def close(self) -> dict[str, str]:
        """Close the pipe; return the lane, which is free again."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.lane


def end_with_parent() -> None:
    """End this process as soon as the one that started it for a fold is gone, be it by a kill.

    Without it the processes of the folds would go on, and write what the same command, started again, writes too.
    Elsewhere it does nothing.
    """
    if os.environ.get(_MARK):
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1):  # a pipe that nobody writes to; not sys.stdin, whose lock would outlive this thread
        pass
    os.write(2, b"\nended, since the process that trains all folds is gone\n")
    os._exit(1)


def _end(running: Collection[_Running]) -> None:
    """End processes, gently first."""
    for entry in running:
        entry.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for entry in running:
        try:
            entry.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            entry.process.kill()
            entry.process.wait()
        entry.close()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does, so that the others can be ended first."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _workflow_in_use() -> ConfigWorkflow:
    """The workflow whose configuration is being run.

    An expression of a configuration cannot see the configuration, only what is referred to, made already. But what
    another process must be given is the whole, as text, with what the command line or the caller has overridden.
    """
    for workflow in workflows_in_use():
        if isinstance(workflow, ConfigWorkflow):
            return workflow
    raise ValueError("FoldRuns.run must be called by a bundle's configuration: python -m monai.bundle run")


def _configuration(workflow: ConfigWorkflow) -> str:
    """The configuration of a workflow, checked, as JSON."""
    config = {key: value for key, value in workflow.parser.get().items() if key != "_meta_"}
    if config.get("fold") is not None:
        fold = config["fold"]
        raise ValueError(f"fold must be left to all_folds.json, which trains all of them, got {fold!r}: give --folds")
    if "@fold" not in str(config.get("ckpt_dir", "@fold")):
        raise ValueError(f"ckpt_dir must differ from fold to fold, got {config['ckpt_dir']!r} for all: leave it out")
    return json.dumps(config, indent=2, default=_as_text) + "\n"


def _as_text(value: Any) -> Any:
    """What a configuration file holds for an object that a caller in Python has given."""
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.device):
        return f"$torch.device({str(value)!r})"
    if hasattr(value, "tolist"):  # NumPy, PyTorch
        return value.tolist()
    raise ValueError(
        "options must be text, numbers, lists or dictionaries to be handed on to the processes of the folds, "
        f"got {value!r}"
    )


def _visible_gpus() -> list[str]:
    """Names of the GPUs, as ``CUDA_VISIBLE_DEVICES`` knows them."""
    count = torch.cuda.device_count()
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (given or [str(i) for i in range(count)])[:count]


def _number_of_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
