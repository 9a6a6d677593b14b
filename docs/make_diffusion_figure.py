# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the picture of the guide of diffusion: retinas, their restorations, anomaly maps, and the masks of experts.

Reads the evaluation of an ensemble on IDRiD (CC BY 4.0), as docs/results/diffusion.md describes it. The images are
those at fixed ranks of the score within each class, so that none is picked by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_figures import fill
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow

from monai_anomaly.visualize import overlay_heatmap, to_gray
from monai_anomaly.visualize.planes import INTENSITIES, display_planes

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "diffusion_restoration"
RANKS = {0: (0.1, 0.9), 1: (0.25, 0.5, 0.75, 0.95)}  # of the images of a class, sorted by score


def score_images(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every test image with its map, restoration, score and mask."""
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / name) for name in ("train.json", "evaluate.json")],
        workflow_type="train",
        bundle_root=str(BUNDLE),
        dataset_dir=options.dataset_dir,
        datalist=options.datalist,
        in_channels=3,
        checkpoint=options.checkpoint,
        output_dir=options.output_dir,
        num_steps=options.num_steps,
        residual=options.residual,
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("scored_network")
    workflow.parser.get_parsed_content("load_weights").load()
    inferer = workflow.parser.get_parsed_content("validate#inferer")
    items = []
    for sample in workflow.parser.get_parsed_content("validate#dataset"):
        result = inferer(sample["image"][None], network)
        items.append({**{k: sample[k] for k in ("image", "label", "target")}, **{k: v[0] for k, v in result.items()}})
    return items


def draw(items: list[dict[str, Any]], path: Path) -> None:
    """One column an image; rows: image, restoration, map, mask."""
    chosen = []
    for target, name in ((0, "healthy"), (1, "diabetic")):
        ranked = sorted((item for item in items if item["target"] == target), key=lambda item: float(item["score"]))
        chosen += [(name, ranked[int(rank * (len(ranked) - 1))]) for rank in RANKS[target]]
    values = torch.cat([item["anomaly_map"].flatten() for item in items]).numpy()
    span = (float(np.quantile(values, 0.005)), float(np.quantile(values, 0.995)))
    columns = []
    for name, item in chosen:
        planes = display_planes({key: item[key] for key in ("image", "reconstruction", "anomaly_map", "label")})
        pictures = {
            "image": to_gray(planes["image"], INTENSITIES),
            "restoration": to_gray(planes["reconstruction"], INTENSITIES),
            "anomaly map": overlay_heatmap(planes["image"], planes["anomaly_map"], None, span, INTENSITIES),
            "lesions (experts)": to_gray(planes["label"], (0.0, 1.0)),
        }
        columns.append((f"{name}\nscore {float(item['score']):.2g}", pictures))
    figure = Figure(figsize=(10, 7.2), dpi=100, facecolor="white")
    fill(figure, columns, top=0.92)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, pil_kwargs={"quality": 90})


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-dir", required=True, help="folder of the retinas")
    parser.add_argument("--datalist", required=True, help="datalist of IDRiD")
    parser.add_argument("--checkpoint", required=True, help="output_dir of the training of the folds")
    parser.add_argument("--output-dir", required=True, help="where restorations are kept")
    parser.add_argument("--num-steps", type=int, default=5)
    parser.add_argument("--residual", default="ssim_upd")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "diffusion.jpg")
    options = parser.parse_args()
    draw(score_images(options), options.output)
    print(options.output)


if __name__ == "__main__":
    main()
