# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_case import Sections, codes, picture, save
from PIL import Image
from scipy.ndimage import zoom

from monai_anomaly.data import convert_csv, draw_datalist
from monai_anomaly.data.__main__ import main
from monai_anomaly.data.audit import AuditError, DatalistAudit

Audit = Callable[..., dict[str, Any]]
USES = ("ignored", "learned", "transductive")


def _changed(folder: Path, source: str, target: str) -> None:
    """Write a copy that was mirrored, stretched and darkened."""
    pixels = np.asarray(Image.open(folder / source)).astype(float)
    copy = zoom(pixels[:, ::-1], [1.05, 1], order=1)[1:49] * 0.7 + 20
    save(folder, target, copy.round().astype(np.uint8))


def test_clean_data_pass_in_every_use(audit: Audit) -> None:
    for use in USES:
        result = audit(unlabeled=use)
        assert result["errors"] == [] and result["unlabeled"] == use
    assert audit()["unlabeled"] == "ignored"


@pytest.mark.parametrize(("use", "where"), [("ignored", "warnings"), ("learned", "errors"), ("transductive", None)])
def test_exact_copy_of_a_test_image(
    audit: Audit, sections: Sections, tmp_path: Path, use: str, where: str | None
) -> None:
    testing, unlabeled = sections["testing"][0]["image"], sections["unlabeled"][0]["image"]
    Image.open(tmp_path / testing).save(tmp_path / unlabeled)
    result = audit(unlabeled=use)
    for name in ("errors", "warnings"):
        assert ("exact_duplicate" in codes(result[name])) is (name == where)
    assert "test_in_unlabeled" not in codes(result["errors"]), "it is reported once"


@pytest.mark.parametrize("use", USES)
def test_changed_copy_of_a_test_image(audit: Audit, sections: Sections, tmp_path: Path, use: str) -> None:
    testing, unlabeled = sections["testing"][0]["image"], sections["unlabeled"][1]["image"]
    _changed(tmp_path, testing, unlabeled)
    result = audit(unlabeled=use)
    assert ("near_duplicates" in codes(result["warnings"])) is (use == "ignored")
    assert codes(result["errors"]) == ({"test_in_unlabeled"} if use == "learned" else set())
    if use == "learned":
        (error,) = result["errors"]
        assert error["file"] == str(tmp_path / unlabeled) and str(tmp_path / testing) in error["message"]
        assert f"--without {tmp_path / unlabeled}" in error["remedy"]
        text = "\\[test_in_unlabeled\\].*--without"
        with pytest.raises(AuditError, match=text):
            DatalistAudit(tmp_path / "datalist.json", progress=False, unlabeled="learned").run()


def test_the_remedy_helps(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    _changed(tmp_path, sections["testing"][0]["image"], sections["unlabeled"][0]["image"])
    (error,) = audit(unlabeled="learned")["errors"]
    draw_datalist(tmp_path / "datalist.json", tmp_path / "mended.json", without=[error["file"]])
    mended = DatalistAudit(tmp_path / "mended.json", progress=False, unlabeled="learned").run()
    assert mended["counts"]["unlabeled"]["images"] == len(sections["unlabeled"]) - 1


def test_changed_copy_of_a_validation_image_is_a_warning(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    _changed(tmp_path, sections["validation"][0]["image"], sections["unlabeled"][0]["image"])
    result = audit(unlabeled="learned")
    assert result["errors"] == [] and "near_duplicates" in codes(result["warnings"])


def test_scene_taken_again(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    """Shifted by six pixels of 48: not alike in place."""
    wide = np.pad(picture(99), 8, "reflect")
    for name, dx in ((sections["testing"][0]["image"], 0), (sections["unlabeled"][0]["image"], 6)):
        save(tmp_path, name, wide[8:56, 4 + dx : 52 + dx])
    assert audit(unlabeled="ignored")["near_duplicates"] == []
    result = audit(unlabeled="learned")
    (error,) = result["errors"]
    assert error["code"] == "test_in_unlabeled" and "shows the same scene as" in error["message"]
    sections["validation"][0], sections["testing"][0] = sections["testing"][0], sections["validation"][0]
    result = audit(unlabeled="learned")
    assert result["errors"] == [] and "same_scene" in codes(result["warnings"])


def test_shared_patients(audit: Audit, sections: Sections) -> None:
    sections["unlabeled"][0]["patient"] = sections["testing"][0]["patient"]
    for use in USES:
        wanted = set() if use == "transductive" else {"patient_in_two_splits"}
        assert codes(audit(unlabeled=use)["errors"]) == wanted
    sections["unlabeled"][0]["patient"] = sections["training"][0]["patient"]
    assert codes(audit(unlabeled="transductive")["errors"]) == {"patient_in_two_splits"}


def test_learning_needs_unlabeled_images(audit: Audit, sections: Sections) -> None:
    assert codes(audit(unlabeled="learned", sections=["training", "testing"])["errors"]) == {"no_unlabeled"}
    del sections["unlabeled"]
    assert codes(audit(unlabeled="learned")["errors"]) == {"no_unlabeled"}
    assert audit(unlabeled="ignored")["errors"] == audit(unlabeled="transductive")["errors"] == []


def test_transductive_use_is_the_first_warning(audit: Audit, sections: Sections) -> None:
    sections["unlabeled"] = [{k: v for k, v in item.items() if k != "label"} for item in sections["testing"]]
    result = audit(unlabeled="transductive")
    assert result["errors"] == []
    first, *others = result["warnings"]
    assert first["code"] == "transductive" and first["message"].startswith("transductive: the method learns from the ")
    assert f"{len(sections['testing'])} test images themselves" in first["message"]
    assert not codes(others) & {"near_duplicates", "exact_duplicate", "transductive"}


def test_the_use_is_part_of_the_fingerprint(audit: Audit, tmp_path: Path) -> None:
    marks = {audit(unlabeled=use, output_dir=tmp_path / "out")["fingerprint"] for use in USES}
    assert len(marks) == 3


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="unlabeled must be one of .*, got 'seen'"):
        DatalistAudit("datalist.json", unlabeled="seen")


def test_command(sections: Sections, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _changed(tmp_path, sections["testing"][0]["image"], sections["unlabeled"][0]["image"])
    (tmp_path / "d.json").write_text(json.dumps(sections))
    arguments = ["audit", str(tmp_path / "d.json"), "--json"]
    assert main(arguments) == 0
    assert main([*arguments, "--unlabeled", "learned"]) == 1
    assert main([*arguments, "--unlabeled", "transductive"]) == 0
    assert '"code": "transductive"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "source", "found"),
    [("cxr", "kermany", []), ("fundus", "idrid", [("idrid_seg_train_11", "idrid_train_083")])],
)
def test_real_data(shared_data: Path, tmp_path: Path, folder: str, source: str, found: list[tuple[str, str]]) -> None:
    """One eye of a public set was photographed twice, some pixels apart: lesions and vessels are the same."""
    base = shared_data / folder
    convert_csv(base / "index.csv", tmp_path / "d.json", [f"source={source}"])
    result = DatalistAudit(tmp_path / "d.json", base, progress=False, unlabeled="learned").inspect()
    pairs = [(Path(p["file"]).stem, Path(p["other"]).stem) for record in result["retaken"] for p in record["pairs"]]
    assert pairs == found
    assert codes(result["errors"]) == ({"test_in_unlabeled"} if found else set())
    with open(base / "index.csv", newline="") as stream:
        split_of = {Path(row["image"]).stem: row["split"] for row in csv.DictReader(stream)}
    assert [(split_of[a], split_of[b]) for a, b in pairs] == [("test", "unlabeled")] * len(found)
