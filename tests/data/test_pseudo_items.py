# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.data import pseudo_labeled_items
from monai_anomaly.data.pseudo_items import read_pseudo_labels

HEALTHY = [f"t{i}.png" for i in range(3)]


def write(folder: Path, **sections: Any) -> Path:
    content: dict[str, Any] = {
        "training": [{"image": f"t{i}.png", "patient": f"p{i}", "target": 0} for i in range(3)],
        "unlabeled": [{"image": f"u/{i}.png", "target": i % 2, "label": "m.png", "patient": f"q{i}"} for i in range(4)],
        "testing": [{"image": f"x{i}.png", "target": i % 2} for i in range(3)],
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps({k: v for k, v in (content | sections).items() if v is not None}))
    return path


def labels(folder: Path, normal: list[str], abnormal: list[str]) -> Path:
    path = folder / "pseudo_labels.json"
    path.write_text(json.dumps({"normal": normal, "abnormal": abnormal, "percent": 50}))
    return path


def names(items: list[dict[str, Any]], base: Path) -> list[str]:
    return [Path(item["image"]).relative_to(base).as_posix() for item in items]


def test_each_module_learns_from_what_stage_1_is_sure_of(tmp_path: Path) -> None:
    file = labels(tmp_path, ["u/2.png"], ["u/3.png", "u/0.png"])
    items = [pseudo_labeled_items(write(tmp_path), module, file) for module in (0, 1)]
    assert names(items[0], tmp_path) == [*HEALTHY, "u/2.png"]
    assert names(items[1], tmp_path) == ["u/3.png", "u/0.png"]
    assert all({"target", "label"}.isdisjoint(item) for item in items[0] + items[1])
    assert items[0][0]["patient"] == "p0" and items[1][0]["patient"] == "q3"


def test_without_pseudo_labels_module_b_takes_all_unlabeled_images(tmp_path: Path) -> None:
    items = [pseudo_labeled_items(write(tmp_path), module, None) for module in (0, 1)]
    assert names(items[0], tmp_path) == HEALTHY
    assert names(items[1], tmp_path) == [f"u/{i}.png" for i in range(4)]


def test_transductive_takes_the_test_images_without_their_targets(tmp_path: Path) -> None:
    datalist = write(tmp_path, unlabeled=None)
    items = pseudo_labeled_items(datalist, 1, None, transductive=True)
    assert names(items, tmp_path) == ["x0.png", "x1.png", "x2.png"]
    assert all({"target", "label"}.isdisjoint(item) for item in items)
    chosen = labels(tmp_path, ["x2.png"], ["x0.png"])
    assert names(pseudo_labeled_items(datalist, 0, chosen, transductive=True), tmp_path) == [*HEALTHY, "x2.png"]


def test_files_are_named_relative_to_the_folder_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    # one image is outside of the data set's folder: it is named by its whole path, as the writer does
    outside = {"image": "../other/o.png"}
    datalist = write(elsewhere, unlabeled=[{"image": "u/0.png"}, outside])
    file = labels(elsewhere, [], ["./u/0.png", str(tmp_path / "other/o.png")])
    monkeypatch.chdir(tmp_path)
    for base in (tmp_path / "data", Path("data")):
        items = pseudo_labeled_items(datalist, 1, file, base)
        assert names(items, tmp_path) == ["data/u/0.png", "other/o.png"]


def test_an_image_named_twice_is_learned_from_once(tmp_path: Path) -> None:
    file = labels(tmp_path, [], ["u/1.png", "u/0.png", "u/1.png"])
    assert names(pseudo_labeled_items(write(tmp_path), 1, file), tmp_path) == ["u/1.png", "u/0.png"]


def test_no_normal_ones_leave_the_healthy_images(tmp_path: Path) -> None:
    file = labels(tmp_path, [], ["u/1.png"])
    assert names(pseudo_labeled_items(write(tmp_path), 0, file), tmp_path) == HEALTHY


@pytest.mark.parametrize(
    ("module", "chosen", "sections", "message"),
    [
        (1, ([], []), {}, "calls no image abnormal, so module B has nothing to learn from"),
        (1, ([], ["u/1.png", "u/1.png"]), {}, "the images of only 1 patient abnormal, .*: use stage 1 alone"),
        (1, ([], ["u/9.png", "u/8.png"]), {}, r"names 2 images that are not in the unlabeled section, first u/9\.png"),
        (0, (["x1.png"], []), {}, r"not in the unlabeled section, first x1\.png: write the pseudo-labels again"),
        (1, None, {"unlabeled": None}, "has no section 'unlabeled'"),
        (1, None, {"unlabeled": []}, "section 'unlabeled' is empty"),
        (2, None, {}, r"module must be 0 \(A\) or 1 \(B\), got 2"),
    ],
)
def test_what_cannot_be_learned_from_is_named(
    module: int, chosen: Any, sections: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = None if chosen is None else labels(tmp_path, *chosen)
    with pytest.raises(ValueError, match=message):
        pseudo_labeled_items(write(tmp_path, **sections), module, file)


@pytest.mark.parametrize("text", ["[]", '{"normal": []}', '{"normal": [], "abnormal": 3}'])
def test_another_file_is_no_file_of_pseudo_labels(text: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"scores\.json holds no pseudo-labels .*write them again with stage 1"):
        read_pseudo_labels(path)
    path.write_text("no JSON")
    with pytest.raises(ValueError, match=r"file of pseudo-labels .*scores\.json is no valid JSON"):
        read_pseudo_labels(path)


def test_a_missing_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json does not exist: write it with configs/pseudo_labels\.json"):
        pseudo_labeled_items(write(tmp_path), 1, tmp_path / "none.json")
    assert read_pseudo_labels(labels(tmp_path, ["a"], ["b"])) == {"normal": ["a"], "abnormal": ["b"], "percent": 50}
