# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_case import Sections, codes, mask, picture, save

from monai_anomaly.data.audit import DatalistAudit

MULLER = unicodedata.normalize("NFC", "M\u00fcller")
Audit = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("one", "other"), [(MULLER, unicodedata.normalize("NFD", MULLER)), ("p0", "P0 "), ("7", "7.0"), (7, 7.0)]
)
def test_one_patient_in_two_spellings(audit: Audit, sections: Sections, one: Any, other: Any) -> None:
    sections["training"][0]["patient"], sections["testing"][0]["patient"] = one, other
    result = audit()
    assert codes(result["errors"]) == {"patient_in_two_splits"}
    (found,) = result["errors"]
    assert "training" in found["message"] and "testing" in found["message"]
    assert all(ascii(str(name)) in found["message"] for name in (one, other)), "both spellings are told, apart"
    (warning,) = [warning for warning in result["warnings"] if warning["code"] == "patient_spellings"]
    assert ascii(str(other)) in warning["message"]


def test_spellings_in_one_section_are_one_patient(audit: Audit, sections: Sections) -> None:
    sections["training"][0]["patient"], sections["training"][1]["patient"] = "a", "A"
    result = audit()
    assert result["errors"] == [] and "patient_spellings" in codes(result["warnings"])
    assert result["counts"]["training"]["patients"] == 5


def test_files_without_a_patient_have_one_spelling(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    for section, name in (("training", "x.png"), ("testing", "X.PNG")):
        sections[section][0]["image"] = save(tmp_path, name, picture(40 + len(section)))
        del sections[section][0]["patient"]
    assert audit()["errors"] == []


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_copy_in_another_section(audit: Audit, sections: Sections, tmp_path: Path, quarters: int) -> None:
    turned = np.rot90(np.asarray(picture(0)), quarters)
    save(tmp_path, sections["testing"][0]["image"], np.ascontiguousarray(turned))
    result = audit()
    (record,) = result["near_duplicates"]
    assert record["pairs"][0]["other"] == str(tmp_path / "0.png") and "near_duplicates" in codes(result["warnings"])


def _anomalous(sections: Sections) -> dict[str, Any]:
    return next(item for item in sections["testing"] if item["target"])


def test_masks_that_mean_something_else(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    item = _anomalous(sections)
    assert not codes(audit()["warnings"]) & {"full_mask", "soft_mask", "repeated_image"}
    save(tmp_path, item["label"], mask(True) // 255 * np.arange(48, dtype=np.uint8))
    (found,) = [w for w in audit()["warnings"] if w["code"] == "soft_mask"]
    assert item["label"] in found["message"] and "more than two values" in found["message"]
    save(tmp_path, item["label"], np.full((48, 48), 255, np.uint8))
    assert "full_mask" in codes(audit()["warnings"])


@pytest.mark.parametrize("name", ["its own file", "a copy of it"])
def test_an_image_as_its_own_mask(audit: Audit, sections: Sections, tmp_path: Path, name: str) -> None:
    item = _anomalous(sections)
    pixels = picture(int(item["image"].split(".")[0]))
    item["label"] = item["image"] if name == "its own file" else save(tmp_path, "copy.png", pixels)
    (found,) = audit()["errors"]
    assert found["code"] == "image_as_mask" and item["image"] in found["message"]


def test_copies_within_a_section(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    save(tmp_path, "1.png", picture(0))
    result = audit()
    (found,) = [w for w in result["warnings"] if w["code"] == "repeated_image"]
    assert f"{tmp_path / '0.png'} = {tmp_path / '1.png'}" in found["message"] and result["errors"] == []


def test_the_fingerprint_covers_detached_pixels(tmp_path: Path) -> None:
    header = "ObjectType = Image\nNDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = {}.raw\n"
    for i in range(3):
        (tmp_path / f"{i}.mhd").write_text(header.format(i))
        (tmp_path / f"{i}.raw").write_bytes(np.random.default_rng(i).bytes(64))
    items = [{"image": f"{i}.mhd", "patient": str(i)} for i in range(3)]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    marks = set()
    for time in (1, 2, 2):
        os.utime(tmp_path / "1.raw", (time, time))
        result = DatalistAudit(tmp_path / "list.json", progress=False, num_workers=1).inspect()
        assert result["errors"] == []
        marks.add(result["fingerprint"])
    assert len(marks) == 2
    (tmp_path / "1.mhd").write_text(header.format("/etc/passwd").replace(".raw", ""))
    (error,) = DatalistAudit(tmp_path / "list.json", progress=False, num_workers=1).inspect()["errors"]
    assert error["code"] == "invalid_image" and "lies outside its own folder" in error["message"]


def test_what_is_no_ordinary_file_is_an_error_of_the_audit(audit: Audit, sections: Sections, tmp_path: Path) -> None:
    (tmp_path / "0.png").unlink()
    os.mkfifo(tmp_path / "0.png")
    (error,) = audit()["errors"]
    assert error["code"] == "invalid_image" and "no ordinary file" in error["message"]
