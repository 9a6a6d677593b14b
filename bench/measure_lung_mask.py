# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Dice of the unsupervised lung mask against lungs drawn by hand, beside trivial masks; intervals over patients."""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from monai_anomaly.functional.bootstrap import draw_multiplicities, percentile_interval
from monai_anomaly.transforms.anatomy import LungMask


def without_black_borders(image: np.ndarray) -> np.ndarray:
    """The mask of an image (1, H, W) cropped to rows and columns with more than 5 % of pixels above 8 of 255."""
    rows, columns = (np.flatnonzero((image[0] > 8).mean(axis) > 0.05) for axis in (1, 0))
    inside = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    mask = np.zeros(image.shape, dtype=bool)
    mask[inside] = LungMask()(image[inside])
    return mask


SPLITS = {"val": ("val",), "test": ("test",), "all": ("val", "test")}
METHODS: dict[str, Callable[[np.ndarray], Any]] = {
    "LungMask": LungMask(),
    "published (compat='anatpaste')": LungMask(compat="anatpaste"),
    "clahe_clip=0.02": LungMask(clahe_clip=0.02),
    "black borders cropped first": without_black_borders,
    "all true": lambda image: np.ones_like(image, dtype=bool),
}
MEAN_MASK = "mean mask of val"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cxr/lungs and cxr/index.csv")
    parser.add_argument("--output", type=Path, default=Path("bench/lung_mask.json"), help="default: %(default)s")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    return parser.parse_args()


def read(path: Path) -> np.ndarray:
    """A gray image (1, H, W), 8 bits."""
    return np.array(Image.open(path).convert("L"))[None]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def agreement(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice, share of the mask that is lung (NaN for an empty mask), share of the lungs that is found."""
    both, found, lungs = (mask & truth).sum(), mask.sum(), truth.sum()
    return {
        "dice": 2 * both / (found + lungs),
        "precision": both / found if found else np.nan,
        "recall": both / lungs,
        "empty": float(found == 0),
    }


def interval(values: np.ndarray, patients: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    """Mean over images that are not NaN, and its 95 % interval over patients."""
    _, own = np.unique(patients, return_inverse=True)
    counts = draw_multiplicities(int(own.max()) + 1, draws, torch.Generator().manual_seed(seed)).numpy()[:, own]
    known = ~np.isnan(values)
    drawn = (counts[:, known] @ values[known]) / counts[:, known].sum(1)
    return dict(percentile_interval(float(values[known].mean()), torch.from_numpy(drawn)))


def healthy(folder: Path, source: str) -> dict[str, float]:
    """How large the mask is in healthy training images, for which no lungs are drawn."""
    rows = [r for r in rows_of(folder / "index.csv") if r["split"] == "train_normal" and r["source"] == source]
    shares = np.array([np.asarray(LungMask()(read(folder / row["image"]))).mean() for row in rows])
    low, median, high = np.percentile(shares, [5, 50, 95])
    return {"images": len(rows), "empty": float((shares == 0).mean()), "p5": low, "median": median, "p95": high}


def measure(
    scores: dict[str, list[dict[str, float]]], split: np.ndarray, patients: np.ndarray, draws: int, seed: int
) -> dict[str, Any]:
    """Means and differences in Dice from the first method, with their intervals, for each split."""
    result: dict[str, Any] = {}
    reference = next(iter(scores))
    for name, parts in SPLITS.items():
        chosen = np.isin(split, parts)
        columns = {
            method: {key: np.array([score[key] for score in values])[chosen] for key in values[0]}
            for method, values in scores.items()
            if method != MEAN_MASK or name == "test"  # elsewhere it would be judged on what it was made of
        }
        whose = patients[chosen]
        result[name] = {"images": int(chosen.sum()), "patients": len(set(whose)), "methods": {}}
        for method, values in columns.items():
            means = {key: interval(column, whose, draws, seed) for key, column in values.items()}
            difference = values["dice"] - columns[reference]["dice"]
            result[name]["methods"][method] = {**means, "difference": interval(difference, whose, draws, seed)}
    return result


def main() -> None:
    """Measure, save and print."""
    args = parse()
    folder = args.data / "cxr"
    rows = rows_of(folder / "lungs" / "index.csv")
    split, patients = (np.array([row[key] for row in rows]) for key in ("split", "patient"))
    images = [read(folder / "lungs" / row["image"]) for row in rows]
    truths = [read(folder / "lungs" / row["mask"]) > 0 for row in rows]
    mean_mask = np.mean([truth for truth, name in zip(truths, split, strict=True) if name == "val"], 0) >= 0.5
    methods = {**METHODS, MEAN_MASK: lambda image: mean_mask}
    scores = {
        name: [agreement(np.asarray(method(image)), truth) for image, truth in zip(images, truths, strict=True)]
        for name, method in methods.items()
    }
    result = {
        "seed": args.seed,
        "draws": args.draws,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scikit-image")},
        },
        "splits": measure(scores, split, patients, args.draws, args.seed),
        "healthy": {source: healthy(folder, source) for source in ("nih", "kermany")},
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    for name, part in result["splits"].items():
        print(f"\n{name}: {part['images']} images of {part['patients']} patients")
        for method, values in part["methods"].items():
            cells = [f"{key} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for key, v in values.items()]
            print(f"{method:30}", *cells, sep=" | ")
    print("\nhealthy:", json.dumps(result["healthy"]))


if __name__ == "__main__":
    main()
