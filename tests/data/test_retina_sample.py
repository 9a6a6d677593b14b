# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import hashlib
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomaly.data import DatalistAudit, load_datalist, read_datalist, sample_dir, validate_datalist
from monai_anomaly.metrics import compute_image_auroc

FOLDER = Path(sample_dir("retina"))
DATALIST = FOLDER / "datalist.json"
SECTIONS = ("training", "validation", "testing")


def pixels(path: Any) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict[str, Any]]]:
    return {section: load_datalist(DATALIST, section) for section in SECTIONS}


def test_counts_and_targets(items: dict[str, list[dict[str, Any]]]) -> None:
    assert validate_datalist(DATALIST) == {"training": 45, "validation": 28, "testing": 68}
    expected: dict[str, dict[int, int]] = {"training": {0: 45}, "validation": {0: 18, 1: 10}, "testing": {0: 28, 1: 40}}
    for section, counts in expected.items():
        assert Counter(item["target"] for item in items[section]) == counts
        assert all(("label" in item) == (item["target"] == 1) for item in items[section])


def test_every_image_is_listed_once_and_small(items: dict[str, list[dict[str, Any]]]) -> None:
    listed = [item for section in SECTIONS for item in items[section]]
    for key, folder, number in (("image", "images", 141), ("label", "masks", 50)):
        names = sorted(Path(item[key]).name for item in listed if key in item)
        assert names == sorted(path.name for path in (FOLDER / folder).iterdir()) and len(set(names)) == number
    assert len({item["patient"] for item in listed}) == 141
    assert all(item["patient"] == f"unknown:{Path(item['image']).stem}" for item in listed)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 5 * 2**20


def test_files_hold_pixels_alone(items: dict[str, list[dict[str, Any]]]) -> None:
    for path in sorted((FOLDER / "images").iterdir()):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))
            assert not image.getexif() and {"exif", "comment", "icc_profile", "xmp"}.isdisjoint(image.info)
    for item in (item for section in SECTIONS for item in items[section] if "label" in item):
        with Image.open(item["label"]) as mask:
            assert (mask.format, mask.mode, mask.size, mask.info) == ("PNG", "L", (256, 256), {})
        assert Path(item["label"]).stem == Path(item["image"]).stem


def test_outlines_lie_on_the_retina(items: dict[str, list[dict[str, Any]]]) -> None:
    shares = []
    for item in items["testing"]:
        if "label" in item:
            inside = pixels(item["label"])
            assert set(np.unique(inside)) == {0, 255}
            shares.append((inside > 0).mean())
            assert (pixels(item["image"]).max(-1)[inside > 0] > 20).mean() > 0.97, item["image"]
    assert np.sum(shares) / len(items["testing"]) == pytest.approx(0.0235, abs=5e-5)
    assert (round(min(shares), 3), round(max(shares), 2)) == (0.003, 0.22)


def test_files_are_those_of_the_checksums() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert len(sums) == len(lines) == 1 + 141 + 50
    for name, digest in sums.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_the_audit_finds_no_copies() -> None:
    result = DatalistAudit(DATALIST, progress=False).run()
    assert result["errors"] == []
    assert [warning["code"] for warning in result["warnings"]] == ["small_test_set"]


def test_the_confounder_is_as_large_as_the_page_says(items: dict[str, list[dict[str, Any]]]) -> None:
    means = torch.tensor(np.array([pixels(item["image"]).mean((0, 1)) for item in items["testing"]]))
    targets = torch.tensor([item["target"] for item in items["testing"]])
    auroc = float(compute_image_auroc(means[:, 0] / means[:, 2], targets))
    assert f"{auroc:.2f}" == "0.78"
    assert f"an AUROC of {auroc:.2f}" in (FOLDER / "README.md").read_text("utf-8")


def test_origin_and_license_stand_beside_it() -> None:
    license_text, readme = ((FOLDER / name).read_text("utf-8") for name in ("LICENSE", "README.md"))
    for text in (license_text, readme):
        for word in ("CC BY 4.0", "Porwal", "Pachade", "Kokare", "Meriaudeau", "IEEE Dataport", "10.21227/H25W98"):
            assert word in text
    assert "https://creativecommons.org/licenses/by/4.0/" in license_text and "Changes:" in license_text
    assert "imsaksham-c/EyeDisease_IDRiD" in readme and "Two eyes of one patient" in readme


def test_names_of_samples() -> None:
    assert Path(sample_dir()).name == Path(sample_dir("radiographs")).name == "sample"
    with pytest.raises(ValueError, match=r"must be one of \['radiographs', 'retina'\], got '../x'"):
        sample_dir("../x")


def test_the_script_makes_these_files(shared_data: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "tools" / "make_retina_sample.py"
    if not script.is_file():
        pytest.skip("tools/ is in the checkout only")
    source = shared_data / "fundus"
    runpy.run_path(str(script), run_name="tool")["make_sample"](source, tmp_path)
    assert read_datalist(tmp_path / "datalist.json") == read_datalist(DATALIST)
    for path in sorted((FOLDER / "masks").iterdir()):
        assert np.array_equal(pixels(tmp_path / "masks" / path.name), pixels(path))
        assert np.array_equal(pixels(source / "masks" / path.name) > 0, pixels(path) > 0)
    errors = []
    for path in sorted((FOLDER / "images").iterdir()):
        ours, again = (pixels(folder / "images" / path.name).astype(int) for folder in (FOLDER, tmp_path))
        assert np.abs(ours - again).max() <= 3, "encoders of JPEG may round differently, no more"
        errors.append(np.square(ours - pixels(source / "images" / f"{path.stem}.png")).mean())
    assert f"{np.sqrt(np.mean(errors)):.1f}" == "1.6"  # gray levels, as the page says


def test_no_image_of_another_source_is_taken(shared_data: Path) -> None:
    with open(shared_data / "fundus" / "index.csv", newline="", encoding="utf-8") as stream:
        rows = {Path(row["image"]).stem: row for row in csv.DictReader(stream)}
    shipped = {path.stem for path in (FOLDER / "images").iterdir()}
    assert {rows[name]["source"] for name in shipped} == {"idrid"}
    assert shipped == {n for n, row in rows.items() if row["source"] == "idrid" and row["split"] != "unlabeled"}
