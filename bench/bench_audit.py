# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit of many images: its time by the number of images, against that of the smallest set, and its memory."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from monai_anomaly.data import DatalistAudit, load_datalist, sample_dir

SIZE = 64
COPIES = 10  # training images that stand in the test section as well, a little brighter


def write_images(folder: Path, count: int) -> Path:
    """Write a datalist of ``count`` images, each a random mixture of two radiographs of the sample, moved and noisy."""
    draw = np.random.default_rng(0)
    items = load_datalist(Path(sample_dir()) / "datalist.json", "training", base_dir=sample_dir())
    pictures = [
        np.asarray(Image.open(item["image"]).convert("L").resize((SIZE, SIZE)), dtype=np.float32) for item in items
    ]
    sections: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "testing": []}
    for number in range(count):
        first, second = draw.integers(len(pictures), size=2)
        share = draw.uniform(0.2, 0.8)
        picture = share * pictures[first] + (1 - share) * np.roll(pictures[second], draw.integers(-4, 5, 2), (0, 1))
        section = "training" if number % 10 < 6 else "validation" if number % 10 < 7 else "testing"
        if number < 10 * COPIES and number % 10 == 9:  # the first of these ten once more
            picture = np.asarray(Image.open(folder / f"{number - 9}.png"), dtype=np.float32) * 1.05
        else:
            picture = picture + draw.normal(0, 4, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png", compress_level=1)
        item: dict[str, object] = {"image": f"{number}.png", "patient": f"p{number}", "target": 0}
        sections[section].append(item | ({"target": number % 2} if section == "testing" else {}))
    (folder / "datalist.json").write_text(json.dumps(sections))
    return folder / "datalist.json"


def measure(count: int) -> dict[str, float]:
    """Seconds and peak memory of the audit of ``count`` images, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        datalist = write_images(Path(folder), count)
        command = [sys.executable, __file__, "--audit", str(datalist)]
        result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return result


def audit(datalist: str) -> dict[str, float]:
    """Audit one datalist, and say what it took and found."""
    start = time.perf_counter()
    result = DatalistAudit(datalist, progress=False).run()
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = [text for text in result["errors"] + result["warnings"] if "near_duplicates" in str(text)]
    return {"seconds": round(seconds, 1), "gigabytes": round(memory, 2), "findings": len(found)}


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 8000], help="numbers of images")
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    parser.add_argument("--audit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.audit:
        print(json.dumps(audit(options.audit)))
        return
    results: dict[str, dict[str, float]] = {}
    for count in options.images:
        found = results[str(count)] = measure(count)
        least, first = options.images[0], results[str(options.images[0])]
        found["time_per_image_ratio"] = round(found["seconds"] / count / (first["seconds"] / least), 2)
        print(f"{count:>8,} images: {found}", flush=True)
        if options.output:
            options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
