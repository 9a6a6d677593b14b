# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.data import convert_folder, load_datalist

SECTIONS = ("training", "validation", "testing")


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def plain(root: Path) -> Path:
    normal = [f"normal/{i:02d}.png" for i in range(20)]
    abnormal = [f"abnormal/sub/{i:02d}.nii.gz" for i in range(8)]
    return tree(root, *normal, *abnormal, "masks/sub/03.png", "masks/sub/05.nii.gz", "normal/notes.txt")


def sections(path: Path, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: load_datalist(path, name, **settings) for name in SECTIONS}


def test_counts_masks_and_seed(tmp_path: Path) -> None:
    root = plain(tmp_path / "d")
    counts = convert_folder(root, root / "o.json")
    assert counts == {"training": 12, "validation": 3 + 3, "testing": 5 + 5}
    found = sections(root / "o.json")
    assert {item["target"] for item in found["training"]} == {0}
    for name, expected in (("validation", (3, 3)), ("testing", (5, 5))):
        targets = [item["target"] for item in found[name]]
        assert (targets.count(0), targets.count(1)) == expected
    everything = [item for items in found.values() for item in items]
    assert len({item["image"] for item in everything}) == 28
    masks = {Path(i["image"]).name: Path(i["label"]).relative_to(root).as_posix() for i in everything if "label" in i}
    assert masks == {"03.nii.gz": "masks/sub/03.png", "05.nii.gz": "masks/sub/05.nii.gz"}
    first = (root / "o.json").read_text()
    convert_folder(root, root / "o.json")
    assert (root / "o.json").read_text() == first
    convert_folder(root, root / "o.json", seed=1)
    assert (root / "o.json").read_text() != first


def test_patients_stay_together(tmp_path: Path) -> None:
    normal = [f"normal/p{p:02d}_{i}.png" for p in range(12) for i in range(3)]
    abnormal = [f"abnormal/p{p:02d}_{i}.png" for p in range(9, 16) for i in range(2)]
    root = tree(tmp_path, *normal, *abnormal)
    for seed in range(5):
        convert_folder(root, root / "o.json", 0.2, 0.3, seed, patient_pattern=r"^(p\d+)_")
        found = sections(root / "o.json")
        patients = {name: {item["patient"] for item in items} for name, items in found.items()}
        assert sum(map(len, patients.values())) == 16 == len(set().union(*patients.values()))
        # 9 healthy patients: 2 validate, 3 test, 4 train; 7 with disease: 3 validate, 4 test
        assert {name: len(p) for name, p in patients.items()} == {"training": 4, "validation": 5, "testing": 7}
        assert not {f"p{p:02d}" for p in range(9, 16)} & patients["training"]
        assert sum(map(len, found.values())) == 36 + 14


def test_base_dir(tmp_path: Path) -> None:
    root = plain(tmp_path / "d")
    convert_folder(root, tmp_path / "o.json", base_dir=tmp_path)
    items = [item for items in sections(tmp_path / "o.json").values() for item in items]
    assert all(Path(item["image"]).is_file() and Path(item.get("label", item["image"])).is_file() for item in items)


def test_smallest_split(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"normal/{i}.png" for i in range(3)), "abnormal/a.png", "abnormal/b.png")
    assert convert_folder(root, root / "o.json") == {"training": 1, "validation": 2, "testing": 2}


def test_errors(tmp_path: Path) -> None:
    out = tmp_path / "o.json"
    with pytest.raises(ValueError, match=r"below 1 together, got 0\.5 and 0\.5"):
        convert_folder(tmp_path, out, 0.5, 0.5)
    with pytest.raises(ValueError, match="has no folder 'normal': put healthy images"):
        convert_folder(tmp_path, out)
    root = tree(tmp_path / "few", "normal/1.png", "normal/2.png", "abnormal/1.png", "abnormal/2.png")
    with pytest.raises(ValueError, match=r"2 patient\(s\) with normal images only and 2.*at least 3 and 2"):
        convert_folder(root, out)
    root = plain(tmp_path / "d")
    with pytest.raises(ValueError, match=r"normal/00\.png does not match patient_pattern '\^p'"):
        convert_folder(root, out, patient_pattern="^p")
    twins = tree(tmp_path / "twins", *(f"normal/{i}.png" for i in range(3)), "abnormal/1.png", "abnormal/2.png")
    tree(twins, "abnormal/1.jpg", "masks/1.png")
    with pytest.raises(ValueError, match=r"1\.jpg and .*1\.png differ in their suffix only"):
        convert_folder(twins, out)
    tree(root, "masks/sub/99.png")
    with pytest.raises(ValueError, match=r"1 file\(s\) in .*masks belong to no image, first masks/sub/99\.png"):
        convert_folder(root, out)
    assert not out.exists()
