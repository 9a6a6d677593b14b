# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Cost of an ensemble's scores and of repulsion, each as a ratio against a reference measured in the same run."""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch

from monai_anomaly.functional import cka
from monai_anomaly.losses import ReconstructionLoss, RepulsionLoss
from monai_anomaly.networks.blocks import NetworkEnsemble
from monai_anomaly.networks.maps import EnsembleMap
from monai_anomaly.networks.nets import DenseAutoencoder


def median_seconds(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median time of a call of each, measured in turns so that what else the machine does hits all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if repeat:  # the first call warms up
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def score_ratios(ensemble: NetworkEnsemble, images: torch.Tensor, repeats: int) -> dict[str, float]:
    """Cost of the dual-space uncertainty against its bare passes and against a loop over images and members."""
    ensemble.eval()

    def bare(batch: torch.Tensor) -> None:
        for member in ensemble.members:
            x = batch.clone().requires_grad_()
            torch.autograd.grad((member(x).reconstruction - x).abs().flatten(1).mean(1).sum(), x)

    dsu, whole, loop = median_seconds(
        [
            functools.partial(EnsembleMap(ensemble, "dsu"), images),
            lambda: bare(images),
            lambda: [bare(image[None]) for image in images],
        ],
        repeats,
    )
    return {
        "DSU / bare forward and backward passes of the members": dsu / whole,
        "loop over images and members / DSU": loop / dsu,
    }


def training_ratios(ensemble: NetworkEnsemble, images: torch.Tensor, repeats: int) -> dict[str, float]:
    """Time of a training step of the last member, with and without repulsion, over that of a member alone."""
    ensemble.activate(len(ensemble.members) - 1)
    ensemble.train()
    optimizer = torch.optim.Adam(ensemble.parameters(), fused=True)
    known = ensemble.features_of_seniors(images)

    def step(weight: float, features: torch.Tensor | None) -> None:
        optimizer.zero_grad(set_to_none=True)
        RepulsionLoss(ReconstructionLoss(), cka, weight)(ensemble(images, features), images).backward()
        optimizer.step()

    plain, cached, computed = median_seconds(
        [lambda: step(0.0, known), lambda: step(1.0, known), lambda: step(1.0, None)], repeats
    )
    return {
        "step with repulsion, features cached / plain step": cached / plain,
        "step with repulsion, features computed / plain step": computed / plain,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=4, help="members; the last one learns (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    member = functools.partial(DenseAutoencoder, spatial_size=options.size)
    ensemble = NetworkEnsemble(member, options.members).to(options.device)
    images = torch.rand(options.batch_size, 1, options.size, options.size, device=options.device) * 2 - 1
    ratios = score_ratios(ensemble, images, options.repeats) | training_ratios(ensemble, images, options.repeats)
    for name, ratio in ratios.items():
        print(f"{name:58s} {ratio:6.2f}")


if __name__ == "__main__":
    main()
