# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from monai_anomaly.data import convert_csv, load_datalist, validate_datalist

HEADER = "image,mask,label,patient,split,z,group\n"
ROWS = HEADER + (
    "i/a.png,,0,p1,train_normal,0.5,x\n"
    "i/b.png,,1,p2,unlabeled,0.25,x\n"
    "i/c.png,,0,p3,val_normal,1,x\n"
    "i/d.png,m/d.png,1,p4,val,2,y\n"
    "i/e.png,m/e.png,1,p5,test,3,x\n"
    "i/f.png,,0,,test,4,y\n"
)


def write(folder: Path, text: str = ROWS) -> Path:
    (folder / "index.csv").write_text(text, encoding="utf-8")
    return folder / "index.csv"


def test_sections_and_fields(tmp_path: Path) -> None:
    counts = convert_csv(write(tmp_path), tmp_path / "o.json", extra=["z"])
    assert counts == {"training": 1, "unlabeled": 1, "validation": 2, "testing": 2}
    assert json.loads((tmp_path / "o.json").read_text()) == {
        "training": [{"image": "i/a.png", "target": 0, "patient": "p1", "z": 0.5}],
        "unlabeled": [{"image": "i/b.png", "patient": "p2", "z": 0.25}],
        "validation": [
            {"image": "i/c.png", "target": 0, "patient": "p3", "z": 1},
            {"image": "i/d.png", "target": 1, "label": "m/d.png", "patient": "p4", "z": 2},
        ],
        "testing": [
            {"image": "i/e.png", "target": 1, "label": "m/e.png", "patient": "p5", "z": 3},
            {"image": "i/f.png", "target": 0, "z": 4},
        ],
    }


def test_conditions(tmp_path: Path) -> None:
    index, out = write(tmp_path), tmp_path / "o.json"
    assert convert_csv(index, out, where=["group=x"]) == {"training": 1, "unlabeled": 1, "validation": 1, "testing": 1}
    assert convert_csv(index, out, where={"group": "y"}) == {"validation": 1, "testing": 1}
    assert convert_csv(index, out, where=["z=2", "z=3"]) == {"validation": 1, "testing": 1}
    assert convert_csv(index, out, where=["z=2", "z=3", "group=x"]) == {"testing": 1}
    both = convert_csv(index, out, where_eval=["group=y"])
    assert both == {"training": 1, "unlabeled": 1, "validation": 1, "testing": 1}


def test_names_of_columns_and_splits(tmp_path: Path) -> None:
    index = write(tmp_path, "file,bad,brain,fold\na.png,0,ba.png,zero\nb.png,1.0,bb.png,two\n")
    counts = convert_csv(
        index,
        tmp_path / "o.json",
        split_column="fold",
        columns={"image": "file", "target": "bad", "foreground": "brain"},
        section_of={"zero": "training", "two": "testing"},
    )
    assert counts == {"training": 1, "testing": 1}
    assert json.loads((tmp_path / "o.json").read_text())["testing"] == [
        {"image": "b.png", "target": 1, "foreground": "bb.png"}
    ]


def test_base_dir_changes_the_paths(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    convert_csv(write(tmp_path / "data"), tmp_path / "o.json", base_dir=tmp_path)
    item = load_datalist(tmp_path / "o.json", "validation")[1]
    assert item["image"] == str(tmp_path / "data" / "i" / "d.png")
    assert item["label"] == str(tmp_path / "data" / "m" / "d.png")


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        ("", {}, "has no rows"),
        (HEADER, {}, "has no rows"),
        (ROWS, {"where": ["nix=1"]}, r"no column \['nix'\], only .*name existing"),
        (ROWS, {"where": ["group"]}, "must be column=value, got 'group'"),
        (ROWS, {"extra": ["patient"]}, "line 2: patient is 'p1'; it must be a number"),
        (ROWS, {"where": ["group=none"]}, "would hold no item"),
        (ROWS.replace(",test,4", ",fold7,4"), {}, "line 7: split is 'fold7'; known are .*--section"),
        (ROWS.replace("0,p1", "2,p1"), {}, r"line 2: label is '2'; it must be 0"),
        (ROWS.replace("i/c.png", ""), {}, "line 4: no image path"),
        (ROWS.replace("i/f.png", "./i/e.png"), {}, "line 7: image ./i/e.png stands in line 6 already"),
        (ROWS + "i/a.png,,0,p1,train_normal,0.5,x\n", {}, "line 8: image i/a.png stands in line 2 already"),
        (ROWS.replace("z,group", "z,z"), {}, "several columns 'z': rename or remove all but one"),
        (ROWS.replace("0.5,x", "0,5,x"), {}, "line 2: 8 cells, but the header has 7"),
        (ROWS.replace("0.5,x", "0.5"), {}, "line 2: 6 cells, but the header has 7"),
        (ROWS.replace("p1", "p1" * 100_000), {}, "line 2: field larger than field limit"),
        (ROWS.replace("0.5", "nan"), {"extra": ["z"]}, "line 2: z is 'nan'; it must be finite"),
    ],
)
def test_errors(tmp_path: Path, text: str, settings: dict[str, list[str]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        convert_csv(write(tmp_path, text), tmp_path / "o.json", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "o.json").exists()
    with pytest.raises(ValueError, match=r"none\.csv does not exist"):
        convert_csv(tmp_path / "none.csv", tmp_path / "o.json")


@pytest.mark.parametrize(("encoding", "reason"), [("latin-1", "byte 0xfc in line 2"), ("utf-16", "UTF-16")])
def test_other_encodings_than_utf_8_are_named(tmp_path: Path, encoding: str, reason: str) -> None:
    (tmp_path / "index.csv").write_bytes(ROWS.replace("p1", "M\u00fcller").encode(encoding))
    with pytest.raises(ValueError, match=rf"CSV .*index\.csv is no UTF-8 text.*{reason}.*save it as UTF-8|{reason}"):
        convert_csv(tmp_path / "index.csv", tmp_path / "o.json")


# healthy and anomalous images and masks of each section, from the tables of the data sets' own READMEs
REAL = {
    ("cxr/index.csv", "source=kermany"): {"training": (150, 0, 0), "validation": (32, 16, 0), "testing": (60, 60, 0)},
    ("cxr/index.csv", "source=nih"): {"training": (434, 0, 0), "validation": (79, 38, 38), "testing": (103, 126, 126)},
    ("brain/lgg_flair.csv", ""): {"training": (558, 0, 0), "validation": (119, 97, 97), "testing": (206, 306, 306)},
    ("brain/lgg_flair.csv", "matched=1"): {
        "training": (558, 0, 0),
        "validation": (55, 53, 53),
        "testing": (170, 179, 179),
    },
    ("brain/brain_tumor_mri.csv", ""): {"training": (201, 0, 0), "validation": (34, 32, 14), "testing": (41, 91, 47)},
    ("fundus/index.csv", "source=idrid"): {"training": (45, 0, 0), "validation": (18, 10, 10), "testing": (28, 40, 40)},
    ("fundus/index.csv", "source=srd"): {"training": (108, 0, 0), "validation": (30, 14, 0), "testing": (44, 40, 0)},
}
UNLABELED = {"source=kermany": 100, "source=nih": 196, "source=idrid": 34, "source=srd": 60}


@pytest.mark.parametrize(("index", "condition"), list(REAL))
def test_real_indexes_give_the_published_counts(shared_data: Path, tmp_path: Path, index: str, condition: str) -> None:
    source = shared_data / index
    evaluation_only = [condition] if condition.startswith("matched") else []
    where = [condition] if condition.startswith("source") else []
    counts = convert_csv(source, tmp_path / "o.json", where, evaluation_only)
    assert counts.get("unlabeled", 0) == UNLABELED.get(condition, 0)
    for section, (healthy, anomalous, masks) in REAL[(index, condition)].items():
        items = load_datalist(tmp_path / "o.json", section, base_dir=source.parent)
        assert Counter(item["target"] for item in items) == Counter({0: healthy, 1: anomalous})
        assert sum("label" in item for item in items) == masks
    assert validate_datalist(tmp_path / "o.json", source.parent) == counts
    patients = [{i["patient"] for i in load_datalist(tmp_path / "o.json", s)} for s in counts]
    if not re.search("unknown", str(patients)):
        assert sum(map(len, patients)) == len(set().union(*patients))
