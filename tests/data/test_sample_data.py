# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomaly.data import load_datalist, read_datalist, sample_dir, validate_datalist

FOLDER = Path(sample_dir())
DATALIST = FOLDER / "datalist.json"


def test_counts_and_targets() -> None:
    assert validate_datalist(DATALIST) == {"training": 150, "unlabeled": 100, "validation": 48, "testing": 120}
    for section, expected in (("training", {0: 150}), ("validation", {0: 32, 1: 16}), ("testing", {0: 60, 1: 60})):
        assert Counter(item["target"] for item in load_datalist(DATALIST, section)) == expected
    assert not [item for item in read_datalist(DATALIST)["unlabeled"] if "target" in item or "label" in item]


def test_no_patient_is_in_two_sections() -> None:
    patients = [
        {i["patient"] for i in load_datalist(DATALIST, s)} for s in ("training", "unlabeled", "validation", "testing")
    ]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 418


def test_images_and_size() -> None:
    files = sorted((FOLDER / "images").iterdir())
    assert len(files) == 418
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) <= 6 * 2**20
    for file in files[::40]:
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (128, 128))
            assert np.asarray(image).std() > 10
    sections = read_datalist(DATALIST)
    listed = [item["image"] for items in sections.values() if isinstance(items, list) for item in items]
    assert sorted(listed) == [f"images/{file.name}" for file in files]


def test_origin_and_license_stand_beside_it() -> None:
    license_text = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for text in (license_text, readme):
        for word in ("CC BY 4.0", "Kermany", "Zhang", "Goldbaum", "Mendeley Data", "rscbjbr9sj"):
            assert word in text
    assert "https://creativecommons.org/licenses/by/4.0/" in license_text
    assert "changed" in readme and "sharpness" in readme and "AUROC" in readme


def test_the_script_makes_these_files(shared_data: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "tools" / "make_sample.py"
    if not script.is_file():
        pytest.skip("tools/ is in the checkout only")
    with open(shared_data / "cxr" / "index.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == "kermany"]
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "images").symlink_to(shared_data / "cxr" / "images")
    with open(tmp_path / "some" / "index.csv", "w", newline="") as stream:  # every tenth, for speed
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[::10])
    made = read_datalist(runpy.run_path(str(script), run_name="tool")["make_sample"](tmp_path / "some", tmp_path))
    shipped = read_datalist(DATALIST)
    for section in ("training", "unlabeled", "validation", "testing"):
        assert made[section] and all(item in shipped[section] for item in made[section])
    assert len(list((tmp_path / "images").iterdir())) == 42
    for file in (tmp_path / "images").iterdir():
        with Image.open(FOLDER / "images" / file.name) as ours, Image.open(file) as again:
            assert np.array_equal(np.asarray(ours), np.asarray(again))
    labels = {f"images/{Path(row['image']).name}": int(row["label"]) for row in rows}
    testing = shipped["testing"]
    assert [item["target"] for item in testing] == [labels[item["image"]] for item in testing]
    first = testing[0]["image"]  # each pixel is the mean of 1.5 x 1.5 source pixels: through sixths of a source pixel
    with Image.open(shared_data / "cxr" / "images" / Path(first).name) as source, Image.open(FOLDER / first) as ours:
        fine = np.repeat(np.repeat(np.asarray(source.convert("L"), dtype=float), 2, 0), 2, 1)
        mean = fine.reshape(128, 3, 128, 3).mean((1, 3))
        assert np.abs(mean - np.asarray(ours)).max() <= 0.5 + 1e-9
