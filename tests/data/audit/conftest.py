# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_case import Sections, mask, picture, save

from monai_anomaly.data.audit import DatalistAudit


@pytest.fixture()
def sections(tmp_path: Path) -> Sections:
    """A small clean data set."""
    made: Sections = {"training": [], "unlabeled": [], "validation": [], "testing": []}
    for number in range(14):
        section = ("training", "validation", "testing", "unlabeled")[0 if number < 6 else 1 + number % 3]
        name = save(tmp_path, f"{number}.png", picture(number))
        item: dict[str, Any] = {"image": name, "patient": f"p{number}"}
        if section in ("validation", "testing"):
            item["target"] = len(made[section]) % 2
            if item["target"]:
                item["label"] = save(tmp_path, f"{number}mask.png", mask(True))
        made[section].append(item)
    return made


@pytest.fixture()
def audit(tmp_path: Path, sections: Sections) -> Callable[..., dict[str, Any]]:
    def inspect(**arguments: Any) -> dict[str, Any]:
        (tmp_path / "datalist.json").write_text(json.dumps(sections))
        return DatalistAudit(tmp_path / "datalist.json", progress=False, num_workers=2, **arguments).inspect()

    return inspect
