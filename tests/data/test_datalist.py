# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomaly.data import (
    DatalistAudit,
    inference_items,
    list_images,
    load_datalist,
    make_phantom,
    read_datalist,
    validate_datalist,
    write_datalist,
)

GOOD: dict[str, Any] = {
    "name": "set",
    "training": [{"image": "a.png"}, {"image": "sub/b.png", "target": 0, "patient": 7, "label": ""}],
    "unlabeled": [{"image": "c.png", "target": 1, "label": "c_mask.png", "patient": "q"}],
    "validation": [
        {"image": "d.png", "target": True, "label": "d_mask.png"},
        {"image": "e.png", "target": 0.0, "label": None},
    ],
    "testing": [{"image": f"t{i}.png", "target": int(i >= 6)} for i in range(10)],
    "nothing": [],
    "text": "no list",
}


def write(folder: Path, content: Any = GOOD) -> Path:
    path = folder / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_training_defaults_and_absolute_paths(tmp_path: Path) -> None:
    items = load_datalist(write(tmp_path), "training")
    assert items == [
        {"image": str(tmp_path / "a.png"), "target": 0, "patient": "a.png"},
        {"image": str(tmp_path / "sub" / "b.png"), "target": 0, "patient": "7"},
    ]


def test_base_dir(tmp_path: Path) -> None:
    items = load_datalist(write(tmp_path), "validation", base_dir=tmp_path / "x" / "..")
    assert [i["image"] for i in items] == [str(tmp_path / "d.png"), str(tmp_path / "e.png")]
    assert items[0]["label"] == str(tmp_path / "d_mask.png") and "label" not in items[1]
    assert [(i["target"], type(i["target"])) for i in items] == [(1, int), (0, int)]


def test_unlabeled_hides_what_a_method_must_not_see(tmp_path: Path) -> None:
    assert load_datalist(write(tmp_path), "unlabeled") == [{"image": str(tmp_path / "c.png"), "patient": "q"}]
    both = load_datalist(write(tmp_path), ("training", "unlabeled"))
    assert [item["target"] for item in both] == [0, 0, -1]


def test_limit_is_spread_over_the_section(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert [i["patient"] for i in load_datalist(path, "testing", limit=4)] == ["t0.png", "t2.png", "t5.png", "t7.png"]
    assert len(load_datalist(path, "testing", limit=99)) == 10
    with pytest.raises(ValueError, match="limit must be at least 1 or None, got 0"):
        load_datalist(path, "testing", limit=0)


def test_target_is_needed_for_evaluation_only(tmp_path: Path) -> None:
    path = write(tmp_path, {"testing": [{"image": "a.png"}, {"image": "b.png", "target": 1}]})
    with pytest.raises(ValueError, match=re.escape(str(path)) + r"(.|\n)*testing\[0\]: a.png: no 'target'.*add 0"):
        load_datalist(path, "testing")
    assert [i["target"] for i in load_datalist(path, "testing", require_target=False)] == [-1, 1]
    path = write(tmp_path, {"testing": [{"image": "a.png"}]})
    assert "target" not in load_datalist(path, "testing", require_target=False)[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1], "holds a list: it must be an object"),
        ({"validation": [{"image": "a"}]}, r"no section 'training', only \['validation'\]"),
        ({"training": []}, "section 'training' is empty; add items"),
        ({"training": {"image": "a"}}, "section 'training' is a dict; it must be a list"),
        ({"training": ["a.png"]}, r"training\[0\]: item is 'a.png'; write an object"),
        ({"training": [{"image": "a"}, {"img": "b"}]}, r"training\[1\]: 'image' is None .*give the path"),
        ({"training": [{"image": ""}]}, r"training\[0\]: 'image' is ''"),
        ({"training": [{"image": "a", "target": 2}]}, "a: 'target' is 2; it must be the number 0"),
        ({"training": [{"image": "a", "target": "0"}]}, "a: 'target' is '0'; it must be the number 0"),
        ({"training": [{"image": "a", "target": [0]}]}, r"a: 'target' is \[0\]; it must be the number 0"),
        ({"training": [{"image": "a", "label": 3}]}, "a: 'label' is 3; give the path of a file"),
        ({"training": [{"image": "a", "z": 1}, {"image": "b"}]}, "1 of 2 items lack 'z', first .*b: give 'z' for all"),
    ],
)
def test_errors_name_file_item_and_remedy(tmp_path: Path, content: Any, reason: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + r"(.|\n)*" + reason):
        load_datalist(path, "training")


def test_many_problems_are_counted_not_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        load_datalist(write(tmp_path, {"training": [{"image": 0}] * 30}), "training")
    assert "has 30 problem(s)" in str(caught.value) and "and 20 more" in str(caught.value)
    assert str(caught.value).count("training[") == 10


def test_missing_file_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json does not exist.*convert-folder"):
        read_datalist(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"training": [}')
    with pytest.raises(ValueError, match=r"bad\.json is no valid JSON .*line 1 column 15.*correct"):
        read_datalist(tmp_path / "bad.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.json is no UTF-8 text"):
        read_datalist(tmp_path / "binary.json")


def test_validate_looks_for_files(tmp_path: Path) -> None:
    path = make_phantom(tmp_path, size=16, num_training=2, num_unlabeled=2, num_validation=2, num_testing=3)
    assert validate_datalist(path) == {"training": 2, "unlabeled": 2, "validation": 2, "testing": 3}
    (tmp_path / "masks" / "testing_001.png").unlink()
    with pytest.raises(ValueError, match=r"testing\[1\]: .*masks.testing_001\.png does not exist.*dataset_dir"):
        validate_datalist(path)
    with pytest.raises(ValueError, match="has no section: add at least one"):
        validate_datalist(write(tmp_path, {"name": "x"}))


def test_write_checks_and_reads_back(tmp_path: Path) -> None:
    sections = {
        "training": [{"image": "a.png", "patient": "p"}],
        "testing": [{"image": "b.png", "target": 1}],
        "unlabeled": [],
    }
    path = write_datalist(tmp_path / "new" / "list.json", sections, name="x")
    assert json.loads(path.read_text()) == {"name": "x", **{k: v for k, v in sections.items() if v}}
    with pytest.raises(ValueError, match=r"no 'target'"):
        write_datalist(path, {"testing": [{"image": "b.png"}]})
    with pytest.raises(ValueError, match="would hold no item"):
        write_datalist(path, {"testing": []})
    assert load_datalist(path, "testing")[0]["target"] == 1  # the refused writes left the file alone


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.nii.gz", "a.jpg", "c.txt", ".hidden/x.png", "d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 9)
    (tmp_path / "1.2.840.10008").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "README").write_text("text " * 99)
    names = ["1.2.840.10008", "IM0001", "a.jpg", "b/10.nii.gz", "b/2.PNG"]
    assert list_images(tmp_path) == [{"image": str(tmp_path / name), "patient": name} for name in names]
    assert list_images(tmp_path / "a.jpg") == [{"image": str(tmp_path / "a.jpg"), "patient": "a.jpg"}]
    assert [i["patient"] for i in inference_items(tmp_path, limit=2)] == ["1.2.840.10008", "a.jpg"]
    with pytest.raises(ValueError, match="gone does not exist"):
        list_images(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image of a known kind"):
        list_images(tmp_path / "empty")


def test_a_folder_is_a_datalist_of_images_to_learn_from(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert read_datalist(tmp_path) == {
        "training": [{"image": str(tmp_path / name), "patient": name} for name in ("a.png", "b/2.png")]
    }
    for base in (None, tmp_path.parent / "elsewhere"):
        items = load_datalist(tmp_path, "training", base)
        assert [(item["image"], item["target"]) for item in items] == [
            (str(tmp_path / name), 0) for name in ("a.png", "b/2.png")
        ]
    with pytest.raises(ValueError, match=r"has no section 'unlabeled', only \['training'\]"):
        load_datalist(tmp_path, ["training", "unlabeled"])
    assert validate_datalist(tmp_path) == {"training": 2}


def test_the_audit_takes_a_folder(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32), np.uint8)).save(tmp_path / f"{i}.png")
    result = DatalistAudit(tmp_path, output_dir=tmp_path / "out", num_workers=1, progress=False).inspect()
    assert result["counts"]["training"]["healthy"] == 3 and result["errors"] == []
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (32, 32), np.uint8)).save(tmp_path / "3.png")
    again = DatalistAudit(tmp_path, output_dir=tmp_path / "out", num_workers=1, progress=False).inspect()
    assert again["counts"]["training"]["healthy"] == 4, "a folder that has changed is audited again"


def test_inference_items_of_a_datalist(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    path = write(tmp_path, {"testing": [{"image": "a.png"}], "validation": [{"image": "v.png"}]})
    assert inference_items(path) == [{"image": str(tmp_path / "a.png"), "patient": "a.png"}]
    assert inference_items(path, "validation", base_dir="/data")[0]["image"] == "/data/v.png"
