# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Overheads of the house: a training step through a bundle against a bare PyTorch loop, and the time to import."""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["functional", "networks.nets", "losses", "transforms", "metrics", "inferers", "data", "handlers", "engines"]


def make_workflow(output_dir: str, epochs: int) -> ConfigWorkflow:
    """The bundle ``ae`` on the embedded sample, without validation."""
    bundle = ROOT / "bundles" / "ae"
    overrides = {"bundle_root": str(bundle), "output_dir": output_dir, "max_epochs": epochs}
    overrides["train#handlers#1#interval"] = epochs + 1  # of the validation
    workflow = ConfigWorkflow(config_file=str(bundle / "configs" / "train.json"), workflow_type="train", **overrides)
    workflow.initialize()
    return workflow


def make_bare_epoch(workflow: ConfigWorkflow, batch_size: int = 64) -> Callable[[], None]:
    """One epoch of a loop with nothing around it, on a copy of the network: same images, loss and optimizer."""
    images = torch.stack(
        [torch.as_tensor(item["image"]) for item in workflow.parser.get_parsed_content("train#dataset")]
    )
    network = copy.deepcopy(workflow.parser.get_parsed_content("network")).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, betas=(0.5, 0.999), fused=True)

    def epoch() -> None:
        order = torch.randperm(len(images))
        for first in range(0, len(images) - batch_size + 1, batch_size):
            x = images[order[first : first + batch_size]]
            optimizer.zero_grad(set_to_none=True)
            (network(x).reconstruction - x).square().mean().backward()
            optimizer.step()

    return epoch


def epoch_ratio(workflow: ConfigWorkflow) -> float:
    """Median time of the trainer's epochs over that of bare epochs run in between.

    All handlers are at work; what they do now and then, such as writing a checkpoint, a median does not show.
    """
    trainer = workflow.parser.get_parsed_content("train#trainer")
    bare_epoch = make_bare_epoch(workflow)
    bare_epoch()  # warm up
    bundle: list[float] = []
    bare: list[float] = []
    started = 0.0

    def take_turns(engine: Engine) -> None:
        nonlocal started
        ended = time.perf_counter()
        if started:
            bundle.append(ended - started)
        bare_epoch()
        started = time.perf_counter()
        bare.append(started - ended)

    trainer.add_event_handler(Events.EPOCH_STARTED, take_turns)
    trainer.run()
    return statistics.median(bundle) / statistics.median(bare)


def import_seconds(modules: str, repeats: int) -> float:
    """Median seconds that modules take to import where MONAI is imported already, each in a new process."""
    code = f"import monai, time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(repeats)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60, help="two steps each (default: %(default)s)")
    parser.add_argument("--imports", type=int, default=5, help="imports, each in a new process (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratio = epoch_ratio(make_workflow(folder, options.epochs))
    print(f"training epoch through the bundle / bare PyTorch loop      {ratio:6.2f}")
    for name, modules in (
        ("monai_anomaly", "monai_anomaly"),
        ("all parts of it", ", ".join(f"monai_anomaly.{part}" for part in PARTS)),
    ):
        print(f"import {name:15s} after monai, seconds                {import_seconds(modules, options.imports):6.2f}")


if __name__ == "__main__":
    main()
