# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomaly.data.__main__ import main


@pytest.fixture()
def datalist(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    made: dict[str, list[dict[str, Any]]] = {}
    for number, (section, target) in enumerate(
        [("training", 0)] * 3 + [("validation", t) for t in (0, 1)] * 2 + [("testing", 0), ("testing", 1)]
    ):
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / f"{number}.png")
        made.setdefault(section, []).append({"image": f"{number}.png", "target": target})
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(made))
    return path


def test_prints_tables(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(datalist), "--output-dir", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    counts = next(line.split() for line in text.splitlines() if line.startswith("validation"))
    assert counts == ["validation", "4", "2", "2", "0", "4"]
    assert "Errors: none" in text and "[small_test_set]" in text and "remedy:" in text
    stored = json.loads((tmp_path / "out" / "audit.json").read_text())
    for name, table in stored["baselines"].items():
        row = next(line.split() for line in text.splitlines() if line.startswith(name))
        assert row[3] == f"{table['testing']['image_auroc']:.3f}" and row[4] == f"{table['testing']['image_ap']:.3f}"


def test_errors_give_exit_code_one(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    assert main(["audit", str(datalist)]) == 1
    text = capsys.readouterr().out
    assert "Errors: 1" in text and "[empty_file]" in text and str(tmp_path / "0.png") in text


def test_json(datalist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(datalist), "--json", "--sections", "testing", "--dataset-dir", str(datalist.parent)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["counts"]) == {"testing"} and "pca_reconstruction" not in result["baselines"]


def test_no_datalist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path / "none.json")]) == 1
    assert "does not exist" in capsys.readouterr().out
