# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomaly.data import draw_unlabeled, load_datalist, unlabeled_targets
from monai_anomaly.data.__main__ import main

Items = list[dict[str, Any]]


def _pool(healthy: int, anomalous: int, images: int = 1) -> Items:
    """Patients of one class each."""
    return [
        {"image": f"{target}_{patient}_{image}.png", "target": target, "patient": f"{target}-{patient}"}
        for target, number in ((0, healthy), (1, anomalous))
        for patient in range(number)
        for image in range(images)
    ]


def _mixed_pool(seed: int) -> Items:
    """Patients with one to five images of either class."""
    rng = np.random.default_rng(seed)
    return [
        {"image": f"{patient}_{image}.png", "target": int(rng.random() < 0.5), "patient": f"p{patient}"}
        for patient in range(30)
        for image in range(rng.integers(1, 6))
    ]


def _split(items: Items, drawn: Items, target: int | None = None) -> list[str]:
    """Patients of whom some images (of one class) are drawn and some are not."""
    there, taken = (
        Counter(item["patient"] for item in some if target in (None, item["target"])) for some in (items, drawn)
    )
    return [patient for patient, count in taken.items() if count < there[patient]]


@pytest.mark.parametrize("ratio", [0, 0.1, 0.29, 0.5, 0.6, 1])
@pytest.mark.parametrize("size", [None, 10, 7])
def test_ratio_and_size(ratio: float, size: int | None) -> None:
    drawn = draw_unlabeled(_pool(30, 20), ratio, size)
    number = size or 20
    assert len(drawn) == len({item["image"] for item in drawn}) == number
    assert abs(sum(item["target"] for item in drawn) - number * ratio) <= 0.5


def test_seed_decides_and_the_order_is_kept() -> None:
    items = _pool(30, 20)
    first, again, other = (draw_unlabeled(items, 0.6, 10, seed) for seed in (0, 0, 1))
    assert first == again and first != other
    places = [items.index(item) for item in first]
    assert places == sorted(places)


def test_every_item_can_be_drawn() -> None:
    items = _pool(6, 4)
    seen = {item["image"] for seed in range(60) for item in draw_unlabeled(items, 0.5, 4, seed)}
    assert seen == {item["image"] for item in items}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ratio", [0, 0.3, 0.5, 1])
def test_patients_stay_together(seed: int, ratio: float) -> None:
    items = _mixed_pool(seed)
    drawn = draw_unlabeled(items, ratio, 25, seed)
    assert len(drawn) == 25
    for target in (0, 1):
        assert len(_split(items, drawn, target)) <= 1
    if ratio == 0.5:
        assert len(_split(items, drawn)) < len({item["patient"] for item in drawn}) / 2, "mixed ones come whole first"


def test_patients_that_fill_the_number_are_never_split() -> None:
    items = _pool(10, 10, images=2)
    assert _split(items, draw_unlabeled(items, 0.6, 20, 5)) == []


def test_neighboring_ratios_share_their_images() -> None:
    items = _pool(40, 40)
    anomalous = [{i["image"] for i in draw_unlabeled(items, r / 10, 20, 3) if i["target"]} for r in range(11)]
    assert all(a <= b for a, b in zip(anomalous, anomalous[1:], strict=False))


def test_without_patients_every_image_is_one() -> None:
    items = [{"image": f"{i}.png", "target": i % 2} for i in range(20)]
    assert len(draw_unlabeled(items, 0.5, 9, 0)) == 9


def test_ddad_takes_the_first_in_file_order() -> None:
    items = _pool(50, 50)
    drawn = draw_unlabeled(items, 0.29, 100 // 2, compat="ddad")
    anomalous, healthy = items[50:], items[:50]
    assert int(50 * 0.29) == 14 and drawn == anomalous[:14] + healthy[:36]
    assert len(draw_unlabeled(_pool(4000, 5012), 0.6, 4000, compat="ddad")) == 4000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"ratio": 1.1}, r"ratio must be in \[0, 1\], got 1.1"),
        ({"ratio": float("nan")}, "ratio must be in"),
        ({"ratio": 0.5, "size": 0}, "size must be at least 1, got 0"),
        ({"ratio": 1, "size": 21}, "need 0 healthy and 21 anomalous ones, but there are 30 and 20: .* 20 suits every"),
        ({"ratio": 0.5, "compat": "amae"}, "compat must be None or 'ddad'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        draw_unlabeled(_pool(30, 20), **arguments)


def test_an_image_without_target_is_named() -> None:
    with pytest.raises(ValueError, match="image x.png has the target None.*--unlabeled-targets"):
        draw_unlabeled([*_pool(3, 3), {"image": "x.png"}], 0.5)


@pytest.fixture()
def datalist(tmp_path: Path) -> Path:
    rows = [f"{n}.png,{n % 2},{'unlabeled' if n < 20 else 'test'},p{n}" for n in range(24)]
    (tmp_path / "index.csv").write_text("\n".join(["image,label,split,patient", *rows]))
    made = tmp_path / "d.json"
    assert main(["convert-csv", str(tmp_path / "index.csv"), str(made), "--unlabeled-targets"]) == 0
    content = json.loads(made.read_text())
    made.write_text(json.dumps({"name": "mine", **content}))
    return made


def test_command(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sub" / "o.json"
    options = ["--ratio", "0.6", "--size", "5", "--seed", "2", "--without", "images/../1.png"]
    assert main(["unlabeled", str(datalist), str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "unlabeled 5, 3 of them anomalous (ratio 0.600)" in printed and "the same dataset_dir" in printed
    before, after = json.loads(datalist.read_text()), json.loads(out.read_text())
    expected = draw_unlabeled([item for item in before["unlabeled"] if item["image"] != "1.png"], 0.6, 5, 2)
    assert after.pop("unlabeled") == expected
    before.pop("unlabeled")
    draw = after.pop("unlabeled_draw")
    assert after == before and after["name"] == "mine"
    assert (draw["ratio_asked"], draw["ratio"], draw["size"], draw["seed"]) == (0.6, 0.6, 5, 2)
    assert (draw["healthy"], draw["anomalous"], draw["compat"]) == (2, 3, None)


def test_no_method_sees_the_targets(datalist: Path, tmp_path: Path) -> None:
    assert all("target" not in item for item in load_datalist(datalist, "unlabeled"))
    assert unlabeled_targets(datalist) == {str(tmp_path / f"{n}.png"): n % 2 for n in range(20)}
    assert next(iter(unlabeled_targets(datalist, "/data"))) == "/data/0.png"
    content = json.loads(datalist.read_text())
    del content["unlabeled"][0]["target"]
    datalist.write_text(json.dumps(content))
    assert unlabeled_targets(datalist)[str(tmp_path / "0.png")] is None


def test_without_a_ratio_all_others_stay(datalist: Path, tmp_path: Path) -> None:
    files = [str(tmp_path / "3.png"), "4.png"]
    assert main(["unlabeled", str(datalist), str(tmp_path / "o.json"), "--without", *files]) == 0
    assert sorted(unlabeled_targets(tmp_path / "o.json")) == sorted(
        str(tmp_path / f"{n}.png") for n in range(20) if n not in (3, 4)
    )


def test_an_image_elsewhere_is_left_out_by_the_path_that_the_audit_prints(datalist: Path, tmp_path: Path) -> None:
    """Where the datalist is not in the folder of the data, a listed path and a printed one have no common end."""
    content = json.loads(datalist.read_text())
    listed = [{"image": f"../{name}.png"} for name in ("1", "x/1", "x/../2")]
    (tmp_path / "lists").mkdir()
    moved = tmp_path / "lists/d.json"
    moved.write_text(json.dumps({**content, "unlabeled": listed}))
    out = str(tmp_path / "o.json")
    files = [str(tmp_path / "1.png"), str(tmp_path / "2.png")]
    for base in ([], ["--dataset-dir", str(tmp_path / "images")]):
        assert main(["unlabeled", str(moved), out, *base, "--without", *files]) == 0
        assert json.loads(Path(out).read_text())["unlabeled"] == [listed[1]]
    assert main(["unlabeled", str(moved), out, "--dataset-dir", str(tmp_path / "a/b"), "--without", *files]) == 2


@pytest.mark.parametrize("option", [["--size", "5"], ["--compat", "ddad"]])
def test_settings_of_a_draw_need_a_ratio(
    option: list[str], datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unlabeled", str(datalist), str(tmp_path / "o.json"), *option]) == 2
    assert "without ratio: give a ratio, or leave them out" in capsys.readouterr().err
    assert not (tmp_path / "o.json").exists()


def test_wrong_datalists(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "o.json")
    assert main(["unlabeled", str(datalist), out, "--without", "33.png"]) == 2
    assert "has no image 33.png" in capsys.readouterr().err
    assert main(["unlabeled", str(datalist), out, "--ratio", "2"]) == 2
    assert f"datalist {datalist}: ratio must be" in capsys.readouterr().err
    datalist.write_text(json.dumps({"testing": [{"image": "a.png", "target": 0}]}))
    assert main(["unlabeled", str(datalist), out, "--ratio", "0.5"]) == 2
    assert "no items in section 'unlabeled'" in capsys.readouterr().err
    assert not Path(out).exists()


def test_csv_targets_of_unlabeled_are_left_out_by_default(datalist: Path, tmp_path: Path) -> None:
    assert main(["convert-csv", str(tmp_path / "index.csv"), str(tmp_path / "o.json")]) == 0
    assert set(unlabeled_targets(tmp_path / "o.json").values()) == {None}
