# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from audit_case import Sections, picture, save

from monai_anomaly.data.audit import AuditError
from monai_anomaly.data.audit.items import finding, grouped


def test_images_of_another_number_of_channels_are_named(
    audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path
) -> None:
    assert {e["remedy"] for e in audit(in_channels=3)["errors"]} == {
        "all images have 1: leave in_channels out, or give weights of such images"
    }
    for number in (1, 4):
        save(tmp_path, f"{number}.png", np.stack([picture(number)] * 3, -1))
    errors = audit(in_channels=1)["errors"]
    assert [Path(error["file"]).name for error in errors] == ["1.png", "4.png"]
    (together,) = grouped(errors)
    names = f"({tmp_path / '1.png'}, {tmp_path / '4.png'})"
    assert together["message"] == f"2 files: image has 3 channel(s), but in_channels=1 {names}"
    assert f"there are 1 channel(s) in 12 (e.g. {tmp_path / '0.png'}), 3 channel(s) in 2" in together["remedy"]


def test_findings_that_differ_in_their_file_alone_are_one_and_others_of_a_kind_the_first() -> None:
    same = [finding("empty_file", f"image {i}.png is empty", "remove it", f"{i}.png") for i in range(50)]
    other = [finding("patient", f"patient {i} is in two sections", f"see {i}", f"{i}.png") for i in range(5)]
    shown = grouped([*same, finding("bad", "no section", "add one"), *other])
    assert [found["message"] for found in shown] == [
        "50 files: image is empty (0.png, 1.png, 2.png and 47 more)",
        "no section",
        *(f"patient {i} is in two sections" for i in range(3)),
        "and 2 more of this kind",
    ]
    assert grouped(same[:1]) == [{"code": "empty_file", "message": "image 0.png is empty", "remedy": "remove it"}]
    text = str(AuditError("list.json", same))
    assert "50 error(s)" in text and len(text.splitlines()) == 3 and "audit.json" in text
