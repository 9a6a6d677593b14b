# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the picture of ``make demo``: embedded retinas whose lesions are found, and missed, and healthy ones.

Reads the weights and the threshold of the demo (the 95th percentile of the scores of healthy validation images). Which
images are shown follows from their scores, none is picked by hand; what became of each stands above it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_figures import fill, score_images
from matplotlib.figure import Figure

from monai_anomaly.data import sample_dir
from monai_anomaly.visualize import overlay_heatmap, to_gray
from monai_anomaly.visualize.planes import INTENSITIES, display_planes

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "aligned_memory"


def choose(items: list[dict[str, Any]], threshold: float) -> list[tuple[str, dict[str, Any]]]:
    """Images at fixed ranks of the score, which rises, with what became of them."""
    groups: dict[tuple[int, bool], list[dict[str, Any]]] = {}
    for item in items:
        groups.setdefault((item["target"], float(item["score"]) >= threshold), []).append(item)
    found, missed, alarms, passed = (groups.get(key, []) for key in ((1, True), (1, False), (0, True), (0, False)))
    chosen = [(f"found\n1 of {len(found)}", item) for item in at_ranks(found, 0.75, 0.5)]
    chosen += [(f"missed\n1 of {len(missed)}", item) for item in at_ranks(missed, 0.5, 0.0)]
    chosen += [(f"false alarm\n1 of {len(alarms)}", item) for item in at_ranks(alarms, 1.0)]
    ranks = (0.5,) if alarms else (1.0, 0.5)  # where there is no false alarm, the healthy image next to one
    return chosen + [(f"healthy, no alarm\n1 of {len(passed)}", item) for item in at_ranks(passed, *ranks)]


def at_ranks(items: list[dict[str, Any]], *ranks: float) -> list[dict[str, Any]]:
    """Items at shares of the way from the first to the last, each once."""
    places = dict.fromkeys(round(rank * (len(items) - 1)) for rank in ranks) if items else {}
    return [items[place] for place in places]


def draw(chosen: list[tuple[str, dict[str, Any]]], span: tuple[float, float], path: Path) -> None:
    """One column an image; rows: photograph, with the outlines of the experts, heat map with them."""
    columns = []
    for title, item in chosen:
        planes = display_planes({key: item[key] for key in ("image", "anomaly_map", "label")})
        nothing = np.zeros_like(planes["anomaly_map"])
        mask = planes["label"] if item["target"] else None
        pictures = {
            "photograph": to_gray(planes["image"], INTENSITIES),
            "lesions (experts)": overlay_heatmap(planes["image"], nothing, mask, (0, 1), INTENSITIES),
            "heat map": overlay_heatmap(planes["image"], planes["anomaly_map"], mask, span, INTENSITIES),
        }
        columns.append((f"{title}, score {float(item['score']):.3f}", pictures))
    figure = Figure(figsize=(2.1 * len(columns), 7), dpi=100, facecolor="white")
    fill(figure, columns, top=0.92)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, pil_kwargs={"quality": 90})


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo", help="what `make demo` has written")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "retina_lesions.jpg")
    options = parser.parse_args()
    weights = options.run / "models" / "model.pt"
    items = score_images(BUNDLE, weights, dataset_dir=sample_dir("retina"), output_dir=str(options.run))
    items.sort(key=lambda item: float(item["score"]))
    threshold = json.loads((options.run / "metrics.json").read_text("utf-8"))["working_point"]["threshold"]
    values = torch.cat([item["anomaly_map"].flatten() for item in items]).numpy()
    span = (float(np.quantile(values, 0.005)), float(np.quantile(values, 0.995)))
    draw(choose(items, threshold), span, options.output)
    print(options.output)


if __name__ == "__main__":
    main()
