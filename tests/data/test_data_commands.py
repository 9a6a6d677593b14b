# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomaly.data import load_datalist
from monai_anomaly.data.__main__ import main


def test_convert_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    index = tmp_path / "data" / "index.csv"
    index.write_text(
        "image,label,set,z,matched,s\n"
        "a.png,0,train_normal,1,,k\nb.png,0,test,2,1,k\nc.png,1,test,3,0,k\nd.png,1,late,4,1,k\ne.png,1,test,5,1,n\n"
    )
    out = tmp_path / "o.json"
    options = ["--where", "s=k", "--where-eval", "matched=1", "--split-column", "set", "--section", "late=testing"]
    assert main(["convert-csv", str(index), str(out), *options, "--extra", "z"]) == 0
    printed = capsys.readouterr().out
    assert (
        "training 1, testing 2" in printed
        and f"relative to {tmp_path / 'data'}" in printed
        and "dataset_dir" in printed
    )
    items = load_datalist(out, "testing", base_dir=index.parent)
    assert [(Path(i["image"]).name, i["target"], i["z"]) for i in items] == [("b.png", 0, 2), ("d.png", 1, 4)]


def test_phantom_folder_and_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path / "p"), "--size", "16", "--seed", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "p" / "datalist.json")
    assert main(["validate", str(tmp_path / "p" / "datalist.json")]) == 0
    assert "training 16, unlabeled 8, validation 8, testing 12" in capsys.readouterr().out
    for kind, source in (("normal", "training"), ("abnormal", "testing")):
        (tmp_path / kind).mkdir()
        for file in (tmp_path / "p" / "images").glob(f"{source}*"):
            file.rename(tmp_path / kind / file.name)
    assert main(["convert-folder", str(tmp_path), str(tmp_path / "o.json"), "--testing", "0.3", "--seed", "2"]) == 0
    summary, hint = capsys.readouterr().out.splitlines()
    assert summary == f"{tmp_path / 'o.json'}: training 9, validation 6, testing 13"
    assert "a patient of its own" in hint and "--patient-pattern" in hint


def test_wrong_input_is_one_line_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path / "none.json")]) == 2
    assert main(["convert-csv", str(tmp_path / "none.csv"), str(tmp_path / "o.json")]) == 2
    assert main(["convert-csv", "x.csv", "o.json", "--section", "nonsense"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "none.json does not exist" in printed.err and not printed.out
    assert "expected NAME=VALUE, got 'nonsense'" in printed.err and "Traceback" not in printed.err
    with pytest.raises(SystemExit):
        main([])
