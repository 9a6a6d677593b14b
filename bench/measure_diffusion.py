# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How many steps and how many members image-conditioned diffusion needs: quality and time of each combination.

Every member restores every image once for each number of steps; ensembles are averages of the first members.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import first
from torch import Tensor
from tqdm import tqdm

from monai_anomaly.handlers import MemberLoader
from monai_anomaly.metrics.image_accumulator import ImageAccumulator
from monai_anomaly.metrics.pixel_accumulator import PixelAccumulator
from monai_anomaly.metrics.summary import summarize_metrics
from monai_anomaly.networks.blocks import RESIDUALS, DiffusionMap, DiffusionSampler
from monai_anomaly.networks.blocks.diffusion_map import above_background
from monai_anomaly.utils import write_json

SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice")


def load_ensemble(options: argparse.Namespace) -> tuple[DiffusionMap, dict[str, Any]]:
    """Ensemble with the weights in the run's folder, and all images of a section as one batch."""
    parser = ConfigParser()
    configs = Path(options.bundle) / "configs"
    parser.read_config([str(configs / "train.json"), str(configs / "evaluate.json")])
    parser.update(
        {
            "bundle_root": options.bundle,
            "dataset_dir": options.dataset_dir,
            "datalist": options.datalist,
            "section": options.section,
            "in_channels": options.channels,
            "val_batch_size": 100_000,
            "validate#dataset#data#limit": options.limit,
        }
    )
    network = parser.get_parsed_content("network_def").eval()
    MemberLoader(network, options.run).load()
    return network, first(parser.get_parsed_content("validate#dataloader"))


@torch.no_grad()
def restorations(
    network: DiffusionMap, images: Tensor, settings: dict[str, Any], batch_size: int, members: int
) -> tuple[Tensor, float]:
    """Restorations of the first members (K, N, C, *S), and seconds of one member for one image."""
    sampler = DiffusionSampler(**settings)
    results = []
    start = time.perf_counter()
    for index in range(members):
        member = network.network.members[index]
        parts = [sampler(member, batch, index)[0] for batch in images.split(batch_size)]
        results.append(torch.cat(parts))
    return torch.stack(results), (time.perf_counter() - start) / (members * len(images))


@torch.no_grad()
def maps_of(network: DiffusionMap, restored: Tensor, images: Tensor, residual: str, background: float | None) -> Tensor:
    """Map of each member (K, N, 1, *S)."""
    maps = torch.stack(
        [
            torch.cat(
                [
                    RESIDUALS[residual](network.network.members[index], part, batch).mean(1, keepdim=True)
                    for part, batch in zip(member.split(64), images.split(64), strict=True)
                ]
            )
            for index, member in enumerate(restored)
        ]
    )
    return maps if background is None else maps * above_background(images, background)


def evaluate(maps: Tensor, batch: dict[str, Any], draws: int) -> dict[str, Any]:
    """Metrics of maps (N, 1, *S) with intervals over patients; the score of an image is the mean of its map."""
    images, pixels = ImageAccumulator(), PixelAccumulator(keep_patients=True)
    owners = [str(patient) for patient in batch["patient"]], list(range(len(maps)))
    images.update(maps.flatten(1).mean(1).double(), torch.as_tensor(batch["target"]), *owners)
    labels = torch.as_tensor(batch["label"])
    pixels.update(list(maps), list(labels), *owners)
    summary = summarize_metrics(images.gathered(), pixels.gathered(), draws, 0.95, 0, 0.3)
    return {name: summary["metrics"][name] for name in SHOWN}


def table(network: DiffusionMap, batch: dict[str, Any], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one row for each number of steps, way of sampling, residual and number of members."""
    images = torch.as_tensor(batch["image"]).as_subclass(Tensor)
    for steps in tqdm(options.steps, desc="steps"):
        settings = {"num_steps": steps, "eta": options.eta, "start": options.start, "spacing": options.spacing}
        settings["prediction"] = options.prediction
        restored, seconds = restorations(network, images, settings, options.batch_size, max(options.members))
        for residual in options.residuals:
            maps = maps_of(network, restored, images, residual, options.background)
            for members in options.members:
                metrics = evaluate(maps[:members].mean(0), batch, options.draws)
                row = {**settings, "residual": residual, "members": members, "evaluations": members * steps}
                row |= {"seconds an image": members * seconds, "metrics": metrics}
                row["difference to the image"] = float((restored[:members].mean(0) - images).abs().mean())
                print_row(row)
                yield row


def print_row(row: dict[str, Any]) -> None:
    """One line for people."""
    values = "  ".join(f"{name} {interval(row['metrics'][name])}" for name in SHOWN)
    name = f"{row['num_steps']:>4} steps {row['members']:>3} members"
    tqdm.write(
        f"{name} {row['residual']:9s} {row['seconds an image']:.3f} s "
        f"difference {row['difference to the image']:.4f}  {values}"
    )


def interval(entry: dict[str, Any]) -> str:
    """Value and its interval."""
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="output_dir of the training, with fold_0, fold_1, ...")
    parser.add_argument("--bundle", default="bundles/diffusion_restoration")
    parser.add_argument("--dataset-dir", required=True)
    parser.add_argument("--datalist", required=True)
    parser.add_argument("--section", default="validation")
    parser.add_argument("--limit", type=int, help="at most that many images, evenly spaced (default: all)")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 5, 10, 25, 50, 250])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--residuals", nargs="+", default=["ssim"], choices=list(RESIDUALS))
    parser.add_argument("--prediction", default="velocity", help="as in the training")
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--spacing", default="leading")
    parser.add_argument("--background", type=float)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", help="JSON file; rows of other settings in it are kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    network, batch = load_ensemble(options)
    for row in table(network, batch, options):
        if options.output:  # row by row: a long measurement that is stopped loses nothing
            path = Path(options.output)
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
            write_json(path, [*before, {"section": options.section, "images": len(batch["image"]), **row}])


if __name__ == "__main__":
    main()
