# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.data import DatalistAudit, inference_items, load_datalist, validate_datalist, write_datalist
from monai_anomaly.data.section_checks import meant_section, repeated_images

ITEMS = [{"image": "a.png", "target": 0}]


def _write(folder: Path, content: Any) -> Path:
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Testing", "testing"),
        ("test", "testing"),
        ("tetsing", "testing"),
        ("TRAIN", "training"),
        (" training ", "training"),
        ("trainig", "training"),
        ("val", "validation"),
        ("validaton", "validation"),
        ("unlabelled", "unlabeled"),
        ("testing_small", None),
        ("external", None),
        ("images", None),
    ],
)
def test_what_a_name_was_meant_to_be(name: str, meant: str | None) -> None:
    assert meant_section(name) == meant


@pytest.mark.parametrize("name", ["Testing", "test", "tetsing"])
def test_a_misspelled_section_is_never_ignored(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path, {"training": ITEMS, name: [{"image": "b.png", "target": 1}]})
    text = f"datalist .*has a section '{name}', which is not read: did you mean 'testing'"
    with pytest.raises(ValueError, match=text):
        load_datalist(path, "training")
    with pytest.raises(ValueError, match=text):
        validate_datalist(path)
    errors = DatalistAudit(path, progress=False).inspect()["errors"]
    (found,) = [error for error in errors if error["code"] == "misspelled_section"]
    assert repr(name) in found["message"] and "did you mean 'testing'?" in found["remedy"]
    assert load_datalist(path, name)[0]["target"] == 1, "a section that is asked for is read"


@pytest.mark.parametrize(
    ("name", "value"),
    [("test", ["img/1.png"]), ("test", {"image": "b.png"}), ("Testing", []), ("tetsing", None), ("val", "val.json")],
)
def test_a_misspelled_section_is_one_whatever_it_holds(tmp_path: Path, name: str, value: Any) -> None:
    path = _write(tmp_path, {"training": ITEMS, name: value})
    with pytest.raises(ValueError, match=f"datalist .*has a section '{name}', which is not read"):
        load_datalist(path, "training")
    errors = DatalistAudit(path, progress=False).inspect()["errors"]
    assert [repr(name) in error["message"] for error in errors if error["code"] == "misspelled_section"] == [True]


def test_a_number_is_no_section(tmp_path: Path) -> None:
    path = _write(tmp_path, {"numTraining": 1, "numTest": 0, "training": ITEMS})
    assert meant_section("numTraining") == "training" and len(load_datalist(path, "training")) == 1
    inspected = DatalistAudit(path, progress=False).inspect()
    found = [finding["code"] for finding in inspected["errors"] + inspected["warnings"]]
    assert not {"misspelled_section", "unread_section"} & set(found)


def test_other_lists_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {"training": ITEMS, "external": [{"image": "a.png", "target": 0}], "numTest": 3, "classes": [1, 2]}
    path = _write(tmp_path, content)
    assert len(load_datalist(path, "training")) == 1, "what holds no items is no section"
    warnings = DatalistAudit(path, progress=False).inspect()["warnings"]
    (found,) = [warning for warning in warnings if warning["code"] == "unread_section"]
    assert "'external'" in found["message"]
    (tmp_path / "a.png").touch()
    del content["numTest"], content["classes"]
    with caplog.at_level(logging.WARNING):
        assert validate_datalist(_write(tmp_path, content)) == {"training": 1, "external": 1}
    assert "section 'external' is not read" in caplog.text


def test_an_item_that_stands_twice(tmp_path: Path) -> None:
    assert repeated_images([{"image": "a"}, {"image": "b"}, {"image": "./a"}, {"image": "x/../a"}, {}, 3]) == {
        2: 0,
        3: 0,
    }
    items = [*ITEMS, {"image": "b.png", "target": 1}, {"image": "./a.png", "target": 1}]
    path = _write(tmp_path, {"testing": items})
    with pytest.raises(ValueError, match=r"testing\[2\]: ./a.png: stands in 'testing' twice, first as testing\[0\]"):
        load_datalist(path, "testing")
    with pytest.raises(ValueError, match="stands in 'testing' twice"):
        write_datalist(tmp_path / "new.json", {"testing": items})
    errors = DatalistAudit(path, progress=False).inspect()["errors"]
    (found,) = [error for error in errors if error["code"] == "repeated_item"]
    assert found["file"] == "./a.png" and found["remedy"] == "remove one, else it counts twice"
    path = _write(tmp_path, {"training": ITEMS, "testing": ITEMS})
    assert len(load_datalist(path, ["training", "testing"])) == 2, "in two sections it is the audit's to judge"


def test_paths_that_are_none(tmp_path: Path) -> None:
    path = _write(tmp_path, {"testing": [{"image": "a\0.png", "target": 0}]})
    with pytest.raises(ValueError, match=r"'a.x00.png': 'image' holds a character that no file name can; correct"):
        load_datalist(path, "testing")
    assert "bad_item" in {error["code"] for error in DatalistAudit(path, progress=False).inspect()["errors"]}


def test_a_datalist_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.json")
    for read in (validate_datalist, inference_items):
        with pytest.raises(ValueError, match=r"datalist .*list\.json is no ordinary file"):
            read(tmp_path / "list.json")
