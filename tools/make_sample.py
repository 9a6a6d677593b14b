# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the embedded sample (``monai_anomaly/data/sample``) from the prepared chest radiographs.

Usage: ``python tools/make_sample.py SOURCE OUTPUT``, where SOURCE holds ``index.csv`` and the images it names.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from monai_anomaly.data.datalist import write_datalist

SECTIONS = {
    "train_normal": "training",
    "unlabeled": "unlabeled",
    "val_normal": "validation",
    "val": "validation",
    "test": "testing",
}
DESCRIPTION = "Frontal chest radiographs of children, 128 x 128, from Kermany, Zhang, Goldbaum (2018), CC BY 4.0"


def area_weights(source: int, target: int) -> np.ndarray:
    """Return the (target, source) matrix whose rows average the source pixels that each target pixel covers."""
    edges = np.arange(target + 1) * source / target
    left = np.arange(source)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    overlap = np.clip(overlap, 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """Return a grey image area-averaged to ``size`` x ``size``, rounded to 8 bits."""
    rows, columns = (area_weights(n, size) for n in image.shape)
    return np.rint(rows @ image.astype(np.float64) @ columns.T).astype(np.uint8)


def make_sample(source: Path, output: Path, size: int = 128, origin: str = "kermany") -> Path:
    """Write the images and the datalist; return the datalist's path."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    sections: dict[str, list[dict[str, object]]] = {name: [] for name in dict.fromkeys(SECTIONS.values())}
    with open(source / "index.csv", newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == origin]
    for row in sorted(rows, key=lambda r: r["image"]):
        name = f"images/{Path(row['image']).name}"
        with Image.open(source / row["image"]) as image:
            pixels = shrink(np.asarray(image.convert("L")), size)
        Image.fromarray(pixels).save(output / name, optimize=True)
        item: dict[str, object] = {"image": name, "target": int(row["label"]), "patient": row["patient"]}
        if SECTIONS[row["split"]] == "unlabeled":
            del item["target"]
        sections[SECTIONS[row["split"]]].append(item)
    return write_datalist(output / "datalist.json", sections, name="kermany_sample", description=DESCRIPTION)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with index.csv")
    parser.add_argument("output", type=Path, help="folder to write images/ and datalist.json to")
    parser.add_argument("--size", type=int, default=128, help="side length in pixels (default 128)")
    arguments = parser.parse_args()
    print(make_sample(arguments.source, arguments.output, arguments.size))
