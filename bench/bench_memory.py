# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What the search of the aligned memory costs beside the network whose features it compares, in the same run."""

from __future__ import annotations

import argparse

import torch
from timing import shortest

from monai_anomaly.functional import to_grid
from monai_anomaly.networks.blocks import PlaceMemory
from monai_anomaly.networks.pretrained import load_backbone
from monai_anomaly.utils import write_json

GRID = [32, 32]


def fitted(features: torch.Tensor, healthy: int) -> PlaceMemory:
    """The memory of so many healthy images, whose features are those given and noise."""
    memory, generator = PlaceMemory(), torch.Generator().manual_seed(0)
    for start in range(0, healthy, len(features)):
        some = features[: healthy - start]
        memory.fit_batch(some + 0.05 * torch.randn(some.shape, generator=generator))
    memory.finish()
    return memory


@torch.no_grad()
def measure(healthy: int, batch_size: int, repeats: int) -> dict[str, float]:
    """Seconds an image of the network and of the search with features given, their ratio, and megabytes kept."""
    images = torch.rand(16, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    extractor = load_backbone("efficientnet_lite0").eval()
    features = to_grid(extractor(images), GRID, unit_length=True)
    memory = fitted(features, healthy)
    best = shortest(
        {"network": lambda: extractor(images[:batch_size]), "search": lambda: memory(features[:batch_size])}, repeats
    )
    kept = sum(buffer.numel() * buffer.element_size() for buffer in memory.buffers())
    return {
        "healthy images": healthy,
        "batch": batch_size,
        "network, seconds an image": best["network"] / batch_size,
        "search, seconds an image": best["search"] / batch_size,
        "search / network": best["search"] / best["network"],
        "megabytes": kept / 1e6,
    }


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", type=int, nargs="+", default=[45, 576])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for healthy in options.healthy:
        for batch_size in options.batch_size:
            rows.append(measure(healthy, batch_size, options.repeats))
            print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()))
    if options.output:
        write_json(options.output, {"threads": options.threads, "rows": rows})


if __name__ == "__main__":
    main()
