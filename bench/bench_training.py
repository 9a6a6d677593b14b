# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Overheads of the house: a training step through a bundle against a bare PyTorch loop, and the time to import."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[1]


def make_workflow(output_dir: str, epochs: int) -> ConfigWorkflow:
    """The bundle ``ae`` on the embedded sample, without validation."""
    bundle = ROOT / "bundles" / "ae"
    overrides = {"bundle_root": str(bundle), "output_dir": output_dir, "max_epochs": epochs, "val_interval": epochs + 1}
    workflow = ConfigWorkflow(config_file=str(bundle / "configs" / "train.json"), workflow_type="train", **overrides)
    workflow.initialize()
    return workflow


def bundle_epochs(workflow: ConfigWorkflow) -> list[float]:
    """Seconds of each epoch of the bundle's trainer, with all its handlers."""
    trainer = workflow.parser.get_parsed_content("train#trainer")
    marks: list[float] = []

    def mark(engine: Engine) -> None:
        marks.append(time.perf_counter())

    trainer.add_event_handler(Events.EPOCH_STARTED, mark)
    trainer.run()
    return [later - earlier for earlier, later in zip(marks, marks[1:], strict=False)]


def bare_epochs(workflow: ConfigWorkflow, epochs: int) -> list[float]:
    """Seconds of each epoch of a loop with nothing around it: same images, network, loss and optimizer."""
    images = torch.stack(
        [torch.as_tensor(item["image"]) for item in workflow.parser.get_parsed_content("train#dataset")]
    )
    network = workflow.parser.get_parsed_content("network").train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, betas=(0.5, 0.999), fused=True)
    batch, times = 64, []
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(len(images))
        for first in range(0, len(images) - batch + 1, batch):
            x = images[order[first : first + batch]]
            optimizer.zero_grad(set_to_none=True)
            (network(x).reconstruction - x).square().mean().backward()
            optimizer.step()
        times.append(time.perf_counter() - start)
    return times


def import_seconds(modules: str, repeats: int) -> float:
    """Median seconds to import in a new process."""
    code = f"import time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(repeats)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--imports", type=int, default=5, help="imports of each kind (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workflow = make_workflow(folder, options.epochs)
        bare_epochs(workflow, 3)  # warm up
        bundle = statistics.median(bundle_epochs(workflow))
        bare = statistics.median(bare_epochs(workflow, options.epochs))
    print(f"training epoch through the bundle / bare PyTorch loop      {bundle / bare:6.2f}")
    both, monai = import_seconds("monai, monai_anomaly", options.imports), import_seconds("monai", options.imports)
    print(f"import monai_anomaly after monai, seconds                  {both - monai:6.2f}")


if __name__ == "__main__":
    main()
