# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the picture of the README: test images of the embedded sample, their reconstructions and anomaly maps.

Uses the weights that ship with the bundle ``d2ue_ae``. The images are those at fixed ranks of the score within each
class, so that none is picked by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow

from monai_anomaly.visualize import overlay_heatmap, to_gray
from monai_anomaly.visualize.planes import INTENSITIES, display_planes

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "d2ue_ae"
RANKS = (0.1, 0.5, 0.9)  # of the images of a class, sorted by score: low, median, high


def score_images(bundle: Path, weights: Path, **settings: Any) -> list[dict[str, Any]]:
    """Every test image with what is known of it and what a bundle with these weights makes of it."""
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / name) for name in ("train.json", "evaluate.json")],
        workflow_type="train",
        bundle_root=str(bundle),
        **settings,
    )
    workflow.initialize()
    network_def, network, inferer, dataset = (
        workflow.parser.get_parsed_content(name)
        for name in ("network_def", "scored_network", "validate#inferer", "validate#dataset")
    )
    network_def.load_state_dict(torch.load(weights, weights_only=True))
    items = []
    for sample in dataset:
        result = inferer(sample["image"][None], network)
        items.append({**{k: sample[k] for k in ("image", "label", "target")}, **{k: v[0] for k, v in result.items()}})
    return items


def draw(items: list[dict[str, Any]], path: Path) -> None:
    """One column an image; rows: input, reconstruction, anomaly map."""
    chosen = []
    for target, name in ((0, "healthy"), (1, "anomalous")):
        ranked = sorted((item for item in items if item["target"] == target), key=lambda item: float(item["score"]))
        chosen += [(name, ranked[int(rank * (len(ranked) - 1))]) for rank in RANKS]
    values = np.concatenate([item["anomaly_map"].numpy().ravel() for item in items])
    span = (float(np.quantile(values, 0.005)), float(np.quantile(values, 0.995)))
    columns = []
    for name, item in chosen:
        planes = display_planes({key: item[key] for key in ("image", "reconstruction", "anomaly_map")})
        pictures = {
            "input": to_gray(planes["image"], INTENSITIES),
            "reconstruction": to_gray(planes["reconstruction"], INTENSITIES),
            "anomaly map": overlay_heatmap(planes["image"], planes["anomaly_map"], None, span, INTENSITIES),
        }
        columns.append((f"{name}\nscore {float(item['score']):.2g}", pictures))
    figure = Figure(figsize=(10, 5.4), dpi=110, facecolor="white")
    fill(figure, columns, top=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def fill(figure: Figure, columns: list[tuple[str, dict[str, np.ndarray]]], top: float) -> None:
    """Draw one column of pictures an image, under its title, with the names of the rows at the left."""
    for column, (title, pictures) in enumerate(columns):
        for row, (label, picture) in enumerate(pictures.items()):
            axes = figure.add_subplot(len(pictures), len(columns), 1 + row * len(columns) + column)
            axes.imshow(picture, interpolation="bicubic")
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(title, fontsize=10)
            if column == 0:
                axes.set_ylabel(label, fontsize=10)
    figure.subplots_adjust(left=0.04, right=0.99, top=top, bottom=0.01, wspace=0.04, hspace=0.04)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "heatmaps.png")
    parser.add_argument("--score", default="ens", help="ens, unc or dsu (default: %(default)s)")
    options = parser.parse_args()
    draw(score_images(BUNDLE, BUNDLE / "models" / "model.pt", score=options.score), options.output)
    print(options.output)


if __name__ == "__main__":
    main()
