# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How many steps and how many members image-conditioned diffusion needs: quality and time of each combination.

Every member restores every image once for each number of steps; ensembles are averages of the members that the bundle
asks with that ``--max_asked``.
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
from torch import Tensor, nn
from tqdm import tqdm

from monai_anomaly.handlers import MemberLoader
from monai_anomaly.metrics.image_accumulator import ImageAccumulator
from monai_anomaly.metrics.pixel_accumulator import PixelAccumulator
from monai_anomaly.metrics.summary import summarize_metrics
from monai_anomaly.networks.maps import RESIDUALS, DiffusionMap, DiffusionSampler
from monai_anomaly.networks.maps.diffusion_map import above_background
from monai_anomaly.utils import write_json

SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice")


def bundle_parser(options: argparse.Namespace) -> ConfigParser:
    """The bundle's training and evaluation, with the data of the command line."""
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
    return parser


def load_ensemble(options: argparse.Namespace) -> tuple[DiffusionMap, dict[str, Any]]:
    """Ensemble with the weights in the run's folder, and all images of a section as one batch."""
    parser = bundle_parser(options)
    network = parser.get_parsed_content("network_def").eval()
    MemberLoader(network, options.run).load()
    return network, first(parser.get_parsed_content("validate#dataloader"))


@torch.no_grad()
def restorations(
    network: DiffusionMap, images: Tensor, settings: dict[str, Any], batch_size: int, members: list[int]
) -> tuple[dict[int, Tensor], float]:
    """Restorations (N, C, *S) of each of these members, and seconds of one member for one image."""
    sampler = DiffusionSampler(**settings)
    start = time.perf_counter()
    results = {
        index: torch.cat([sampler(network.network[index], part, index)[0] for part in images.split(batch_size)])
        for index in members
    }
    return results, (time.perf_counter() - start) / (len(members) * len(images))


@torch.no_grad()
def map_of(member: nn.Module, restored: Tensor, images: Tensor, residual: str, background: float | None) -> Tensor:
    """Maps of one member (N, 1, *S)."""
    parts = zip(restored.split(64), images.split(64), strict=True)
    maps = torch.cat([RESIDUALS[residual](member, part, image).mean(1, keepdim=True) for part, image in parts])
    return maps if background is None else maps * above_background(images, background)


def asked(network: DiffusionMap, members: int) -> list[int]:
    """Numbers of the members that the bundle asks when it may ask so many."""
    network.network.max_asked = members
    return network.network.asked()


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
        needed = sorted({index for members in options.members for index in asked(network, members)})
        restored, seconds = restorations(network, images, settings, options.batch_size, needed)
        for residual in options.residuals:
            maps = {
                index: map_of(network.network[index], result, images, residual, options.background)
                for index, result in restored.items()
            }
            for members in options.members:
                chosen = asked(network, members)
                metrics = evaluate(torch.stack([maps[index] for index in chosen]).mean(0), batch, options.draws)
                number = len(chosen)  # fewer than may be asked, where not all folds are there
                row = {**settings, "residual": residual, "members": number, "evaluations": number * steps}
                row |= {"seconds an image": number * seconds, "metrics": metrics}
                mean = torch.stack([restored[index] for index in chosen]).mean(0)
                row["difference to the image"] = float((mean - images).abs().mean())
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is measured, on which data."""
    parser.add_argument("--run", required=True, help="output_dir of the training, with fold_0, fold_1, ...")
    parser.add_argument("--bundle", default="bundles/diffusion_restoration")
    parser.add_argument("--dataset-dir", required=True)
    parser.add_argument("--datalist", required=True)
    parser.add_argument("--limit", type=int, help="at most that many images, evenly spaced (default: all)")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--residuals", nargs="+", default=["ssim"], choices=list(RESIDUALS))
    parser.add_argument("--prediction", default="velocity", help="as in the training")
    parser.add_argument("--background", type=float)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", help="JSON file; rows of other settings in it are kept")


def append_row(options: argparse.Namespace, images: int, row: dict[str, Any]) -> None:
    """Write one row: a long measurement that is stopped loses nothing."""
    if options.output:
        path = Path(options.output)
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        write_json(path, [*before, {"section": options.section, "images": images, **row}])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--section", default="validation")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 5, 10, 25, 50, 250])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--spacing", default="leading")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    network, batch = load_ensemble(options)
    for row in table(network, batch, options):
        append_row(options, len(batch["image"]), row)


if __name__ == "__main__":
    main()
