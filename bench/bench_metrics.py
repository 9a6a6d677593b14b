# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Time and memory of the pixel metrics against scikit-learn and MONAI on the same pixels in one run."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator

import torch
from monai.metrics import compute_roc_auc
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomaly.metrics import (
    PixelAccumulator,
    PixelAPMetric,
    PixelAUROCMetric,
    PixelBestDiceMetric,
    PixelPROMetric,
)

METRICS = {"AUROC": PixelAUROCMetric, "AP": PixelAPMetric, "best Dice": PixelBestDiceMetric, "PRO": PixelPROMetric}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=float, default=1.6e6, help="number of pixels (default: %(default)g)")
    parser.add_argument("--size", type=int, default=128, help="side of an image (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch (default: %(default)s)")
    parser.add_argument("--bits", type=int, default=16, help="streaming uses 2 ** BITS bins (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="the fastest of so many runs counts (default: %(default)s)"
    )
    parser.add_argument("--slow", action="store_true", help="also time monai.metrics.compute_roc_auc")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def batches(pixels: int, size: int, batch_size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield squared-error-like maps with one square lesion in every second image; made anew each time, never kept."""
    generator = torch.Generator().manual_seed(seed)
    images = max(2, round(pixels / size**2))
    for start in range(0, images, batch_size):
        count = min(batch_size, images - start)
        labels = torch.zeros(count, 1, size, size)
        corners = torch.randint(0, size // 2, (count, 2), generator=generator).tolist()
        for image in range(start % 2, count, 2):
            y, x = corners[image]
            labels[image, :, y : y + size // 5, x : x + size // 5] = 1.0
        noise = torch.randn(labels.shape, generator=generator)
        yield (noise + 1.5 * labels).square() * 1e-3, labels


def timed(function: Callable[[], dict[str, float]], repeats: int) -> tuple[float, dict[str, float]]:
    best, values = float("inf"), {}
    for _ in range(repeats):
        start = time.perf_counter()
        values = function()
        best = min(best, time.perf_counter() - start)
    return best, values


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def streaming(args: argparse.Namespace) -> tuple[float, dict[str, float], dict[str, float]]:
    """Stream batches that are thrown away at once; the time of making them is left out."""
    accumulator, seconds = PixelAccumulator("streaming", bits=args.bits), 0.0
    for maps, labels in batches(int(args.pixels), args.size, args.batch_size, args.seed):
        start = time.perf_counter()
        accumulator.update(maps, labels)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    metrics = {name: metric(accumulator) for name, metric in METRICS.items()}
    values = {name: metric.aggregate() for name, metric in metrics.items()}
    seconds += time.perf_counter() - start
    return seconds, values, {name: metric.error_bound for name, metric in metrics.items()}


def exact(maps: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    accumulator = PixelAccumulator("exact")
    accumulator.update(maps, labels)
    return {name: metric(accumulator).aggregate() for name, metric in METRICS.items()}


def main() -> None:
    args = parse()
    before = peak_mib()
    streamed, values, bounds = streaming(args)
    print(f"streaming: {streamed:.2f} s, peak memory {before:.0f} + {peak_mib() - before:.0f} MiB")
    parts = list(zip(*batches(int(args.pixels), args.size, args.batch_size, args.seed), strict=True))
    maps, labels = (torch.cat(part) for part in parts)
    y, s = labels.flatten().numpy(), maps.flatten().numpy()
    rows = {
        "streaming, 4 metrics": (streamed, values),
        "exact, 4 metrics": timed(lambda: exact(maps, labels), args.repeats),
        "scikit-learn, AUROC and AP": timed(
            lambda: {"AUROC": float(roc_auc_score(y, s)), "AP": float(average_precision_score(y, s))}, args.repeats
        ),
    }
    if args.slow:
        rows["MONAI, AUROC"] = timed(
            lambda: {"AUROC": float(compute_roc_auc(maps.reshape(-1, 1), labels.reshape(-1, 1)))}, args.repeats
        )
    print(f"\n| {maps.numel():,} pixels | seconds | times streaming | " + " | ".join(METRICS) + " |")
    print("|---|---:|---:|" + "---:|" * len(METRICS))
    for name, (seconds, found) in rows.items():
        cells = [f"{found[metric]:.6f}" if metric in found else "" for metric in METRICS]
        print(f"| {name} | {seconds:.2f} | {seconds / streamed:.1f} | " + " | ".join(cells) + " |")
    print("| error bound of streaming | | | " + " | ".join(f"{bounds[name]:.1e}" for name in METRICS) + " |")


if __name__ == "__main__":
    main()
