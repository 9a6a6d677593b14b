# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate every bundle with ``--tracking mlflow``, and look at what MLflow has then.

Makes its environment from PyPI, once: PyTorch and this package with its extra ``mlflow``. In it each bundle learns for
an epoch with a small network on the embedded sample and is evaluated, by the commands of its README; the store in the
output folder must then hold a finished run of each, with losses, metrics, settings, audit and report. Prints a table;
the exit status is 1 when a check fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from environment import (
    PASSED,
    ROOT,
    Results,
    finish,
    open_checks,
    parse_options,
    read_results,
    run_inside,
    write_results,
)

STEPS = [["torch==2.13.0"], ["-c", str(ROOT / "constraints.txt"), f"{ROOT}[mlflow]"]]
CHECKS = ("training", "evaluation")
# what makes networks small: each bundle reads those that it has
SMALL: dict[str, Any] = {
    "spatial_size": [32, 32],
    "hidden_channels": 8,
    "latent_channels": 4,
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_steps": 2,
    "hidden_size": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_hidden_size": 24,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
    "variants": 2,
}
ARTIFACTS = {
    "training": {"audit.json", "training.json"},
    "evaluation": {"audit.json", "metrics.json", "report.html", "scores.csv"},
}


def main() -> int:
    """Make the environment, or, inside it, run the bundles."""
    options = parse_options((__doc__ or "").partition("\n")[0], "mlflow")
    return _run(options) if options.inside else run_inside(__file__, options, STEPS)


def _run(options: Any) -> int:
    results: Results = read_results(options.work_dir, options.again)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    for name in options.bundles:
        if not open_checks(results, name, CHECKS):
            continue
        output = options.work_dir / "runs" / name
        shutil.rmtree(output, ignore_errors=True)
        for check in CHECKS:
            try:
                _start(name, check, output)
                told = _look(check, output)
            except Exception as error:  # whatever goes wrong is what the table is to show
                told = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
            results.setdefault(name, {})[check] = told
            print(f"{name} {check}: {told}", flush=True)
            write_results(options.work_dir, results)
    return finish(results, options.bundles, CHECKS)


def _start(name: str, check: str, output: Path) -> None:
    """Run what a README says, for two modules that are compared for one network of each."""
    bundle = ROOT / "bundles" / name
    config = json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    settings = {key: value for key, value in SMALL.items() if key in config}
    if check == "training":
        settings |= {"max_epochs": 1, "val_interval": 1}
    if "pseudo_labels" in config:
        settings["pseudo_labels"] = "$None"
    compares = "num_normal" in config or "pseudo_labels" in config
    num_folds = config.get("trained", {}).get("defaults", {}).get("num_folds", 2)
    folds = [0, num_folds // 2] if compares and check == "training" else [None]
    files = ["configs/train.json", *(["configs/evaluate.json"] if check == "evaluation" else [])]
    for fold in folds:
        more = {} if fold is None else {"fold": fold}
        words = ["--config_file", str(files), "--output_dir", str(output), "--tracking", "mlflow", "--run_name", check]
        for key, value in {**settings, **more}.items():
            words += [f"--{key}", str(value)]
        done = subprocess.run(
            [sys.executable, "-m", "monai.bundle", "run", *words], cwd=bundle, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr)


def _look(check: str, output: Path) -> str:
    """What the last run of this name has in the store."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output}/mlruns.db")
    experiment = client.get_experiment_by_name("monai_experiment")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == check]
    run = runs[0]
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    wanted = "train_loss" if check == "training" else "image_auroc"
    problems = [f"no {name}" for name in sorted(ARTIFACTS[check] - files)]
    problems += [] if any(name.startswith("config_") for name in files) else ["no configuration"]
    problems += [] if wanted in run.data.metrics else [f"no {wanted}"]
    problems += [] if run.info.status == "FINISHED" else [f"status {run.info.status}"]
    problems += [] if len(run.data.params) > 2 else ["no settings"]
    if problems:
        raise RuntimeError(", ".join(problems))
    return f"{PASSED}, {len(run.data.metrics)} metrics, {len(run.data.params)} settings, {len(files)} files"


if __name__ == "__main__":
    sys.exit(main())
