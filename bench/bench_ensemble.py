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
from monai_anomaly.networks.blocks import ENSEMBLE_SCORES, EnsembleMap, NetworkEnsemble
from monai_anomaly.networks.nets import DenseAutoencoder


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median time of a call, after one call that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def score_ratios(ensemble: NetworkEnsemble, images: torch.Tensor, repeats: int) -> dict[str, float]:
    """Time of each score over that of one plain pass through all members."""
    ensemble.eval()

    def plain() -> None:
        with torch.no_grad():
            for member in ensemble.members:
                member(images)

    reference = median_seconds(plain, repeats)
    ratios = {
        f"{score}, batch of {len(images)}": median_seconds(
            functools.partial(EnsembleMap(ensemble, score), images), repeats
        )
        for score in ENSEMBLE_SCORES
    }
    dsu = EnsembleMap(ensemble, "dsu")
    ratios["dsu, one image at a time"] = median_seconds(lambda: [dsu(image[None]) for image in images], repeats)
    return {name: seconds / reference for name, seconds in ratios.items()}


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

    reference = median_seconds(lambda: step(0.0, known), repeats)
    return {
        "repulsion, features computed once per data set": median_seconds(lambda: step(1.0, known), repeats) / reference,
        "repulsion, features computed in every step": median_seconds(lambda: step(1.0, None), repeats) / reference,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    member = functools.partial(DenseAutoencoder, spatial_size=options.size)
    ensemble = NetworkEnsemble(member, options.members).to(options.device)
    images = torch.rand(options.batch_size, 1, options.size, options.size, device=options.device) * 2 - 1
    print("score: time relative to one pass without gradient through all members")
    for name, ratio in score_ratios(ensemble, images, options.repeats).items():
        print(f"  {name:50s} {ratio:6.2f}")
    print("training step of the last member: time relative to the step without repulsion")
    for name, ratio in training_ratios(ensemble, images, options.repeats).items():
        print(f"  {name:50s} {ratio:6.2f}")


if __name__ == "__main__":
    main()
