# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the embedded retinas (``monai_anomaly/data/sample_retina``) from the prepared photographs of IDRiD.

Usage: ``python tools/make_retina_sample.py SOURCE OUTPUT``, where SOURCE holds ``index.csv`` and the images it names.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_anomaly.data.convert_csv import convert_csv
from monai_anomaly.data.datalist import TESTING, TRAINING, VALIDATION, read_datalist, write_datalist
from monai_anomaly.utils.atomic import write_text

ORIGIN = "idrid"  # the other source of the index, srd, may not be used for every purpose
SECTIONS = (TRAINING, VALIDATION, TESTING)
QUALITY = 95
DESCRIPTION = (
    "Retinal photographs, 256 x 256, with experts' outlines of lesions, from IDRiD, Porwal et al. 2018, CC BY 4.0"
)


def make_sample(source: Path, output: Path, quality: int = QUALITY) -> Path:
    """Write images, masks, datalist and checksums; return the datalist's path."""
    datalist = output / "datalist.json"
    for name in ("images", "masks"):
        (output / name).mkdir(parents=True, exist_ok=True)
    convert_csv(source / "index.csv", datalist, where={"source": ORIGIN})
    content = read_datalist(datalist)
    sections = {name: [write_item(item, source, output, quality) for item in content[name]] for name in SECTIONS}
    write_datalist(datalist, sections, name="idrid_sample", description=DESCRIPTION)
    write_checksums(output)
    return datalist


def write_item(item: dict[str, Any], source: Path, output: Path, quality: int) -> dict[str, Any]:
    """Write the image and the mask of an item, pixels alone, and return the item with their names."""
    name = f"images/{Path(item['image']).stem}.jpg"
    with Image.open(source / item["image"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    # colors at full resolution: half a lesion's contrast is its color
    Image.fromarray(pixels).save(output / name, quality=quality, subsampling=0, optimize=True)
    written = {**item, "image": name}
    if "label" in item:
        written["label"] = f"masks/{Path(item['label']).name}"
        with Image.open(source / item["label"]) as mask:
            inside = np.asarray(mask.convert("L")) > 0
        Image.fromarray(inside.astype(np.uint8) * 255).save(output / written["label"], optimize=True)
    return written


def write_checksums(folder: Path) -> None:
    """Write ``SHA256SUMS``, which ``sha256sum --check SHA256SUMS`` reads."""
    files = [folder / "datalist.json", *sorted(folder.glob("images/*")), *sorted(folder.glob("masks/*"))]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}" for file in files]
    write_text(folder / "SHA256SUMS", "\n".join(sums) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with index.csv")
    parser.add_argument("output", type=Path, help="folder to write images/, masks/, datalist.json and SHA256SUMS to")
    parser.add_argument("--quality", type=int, default=QUALITY, help="of the JPEG images (default %(default)s)")
    arguments = parser.parse_args()
    print(make_sample(arguments.source, arguments.output, arguments.quality))
