# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_case import Sections, codes

from monai_anomaly.data.audit import DatalistAudit


def _from_csv(index: Path, out: Path, choose: Callable[[dict[str, str]], str | None], patients: bool = True) -> Path:
    made: Sections = {}
    with open(index, newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            section = choose(row)
            if section:
                item = {"image": row["image"], "patient": row["patient"] if patients else str(number)}
                made.setdefault(section, []).append({**item, "target": int(row["label"])})
    out.write_text(json.dumps(made))
    return out


_SPLITS = {"train_normal": "training", "val": "validation", "test": "testing"}


def test_known_confounder_of_real_radiographs(shared_data: Path, tmp_path: Path) -> None:
    """The values that stand beside the data set: intensity 0.61, contrast 0.35, sharpness 0.19, PCA error 0.73."""
    folder = shared_data / "cxr"
    datalist = _from_csv(
        folder / "index.csv",
        tmp_path / "d.json",
        lambda row: _SPLITS.get(row["split"]) if row["source"] == "kermany" else None,
    )
    result = DatalistAudit(datalist, folder, progress=False).run()
    auroc = {name: table["testing"]["image_auroc"] for name, table in result["baselines"].items()}
    assert auroc["mean_intensity"] == pytest.approx(0.61, abs=0.01)
    assert auroc["contrast"] == pytest.approx(0.35, abs=0.01)
    assert auroc["sharpness"] == pytest.approx(0.19, abs=0.02)
    assert auroc["pca_reconstruction"] == pytest.approx(0.73, abs=0.03)
    assert codes(result["warnings"]) == {"trivial_baseline"}


def test_published_brain_split_is_flagged(shared_data: Path, tmp_path: Path) -> None:
    """Every test image of the published split that has a copy in its training set, as far as both are here."""
    folder = shared_data / "brain"
    section = {"train": "training", "test": "testing"}

    def choose(row: dict[str, str]) -> str | None:
        return section.get(row["d2ue_split"]) if row["class"] == "notumor" or row["d2ue_split"] == "test" else None

    datalist = _from_csv(folder / "brain_tumor_mri.csv", tmp_path / "d.json", choose, patients=False)
    with open(folder / "brain_tumor_mri.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if choose(row)]
    seen = {row["patient"] for row in rows if row["d2ue_split"] == "train"}
    copied = {str(folder / row["image"]) for row in rows if row["d2ue_split"] == "test" and row["patient"] in seen}
    result = DatalistAudit(datalist, folder, progress=False).inspect()
    assert "exact_duplicate" in codes(result["errors"])
    (record,) = result["near_duplicates"]
    flagged = {pair["file"] for pair in record["pairs"]}
    assert len(copied) > 40
    assert len(flagged & copied) > 0.9 * len(copied)
    assert not flagged - copied
    assert record["healthy_found"] > 0.5 * record["healthy"]
