# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.data import ddad_items, pretraining_items


def _write(folder: Path, **sections: Any) -> Path:
    content: dict[str, Any] = {
        "training": [{"image": f"t{i}.png", "patient": f"p{i}"} for i in range(5)],
        "unlabeled": [{"image": f"u{i}.png", "target": i % 2, "label": "mask.png"} for i in range(4)],
        "testing": [{"image": f"x{i}.png", "target": i % 2} for i in range(3)],
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps({k: v for k, v in (content | sections).items() if v is not None}))
    return path


def _names(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["image"]).name for item in items]


HEALTHY = [f"t{i}.png" for i in range(5)]


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("transductive", [False, True])
def test_the_normal_module_sees_healthy_images_alone(fold: int, transductive: bool, tmp_path: Path) -> None:
    items = ddad_items(_write(tmp_path, unlabeled=None), None, fold, 2, transductive)
    assert _names(items) == HEALTHY and all(item["target"] == 0 for item in items)


def test_the_other_module_sees_unlabeled_ones_too_and_nothing_of_their_state(tmp_path: Path) -> None:
    items = ddad_items(_write(tmp_path), tmp_path / "images", 2, 2)
    assert _names(items) == HEALTHY + [f"u{i}.png" for i in range(4)]
    assert [item["target"] for item in items] == [0] * 5 + [-1] * 4
    assert not any("label" in item for item in items) and items[0]["image"] == str(tmp_path / "images/t0.png")


def test_transductive_takes_the_test_images_without_their_targets(tmp_path: Path) -> None:
    items = ddad_items(_write(tmp_path, unlabeled=None), None, 5, 3, transductive=True)
    assert _names(items) == HEALTHY + [f"x{i}.png" for i in range(3)]
    assert [item["target"] for item in items] == [0] * 5 + [-1] * 3


def test_each_fold_has_an_order_of_its_own_which_stays(tmp_path: Path) -> None:
    path = _write(tmp_path)
    orders = [_names(ddad_items(path, None, fold, 3, seed=seed)) for seed in (0, 1) for fold in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6 and all(sorted(order) == HEALTHY for order in orders)
    assert _names(ddad_items(path, None, 1, 3, seed=0)) == orders[1]


@pytest.mark.parametrize("section", [None, []])
def test_no_unlabeled_images_name_file_and_remedy(section: Any, tmp_path: Path) -> None:
    path = _write(tmp_path, unlabeled=section)
    with pytest.raises(ValueError, match="no images in the section 'unlabeled'") as error:
        ddad_items(path, None, 2, 2)
    assert str(path) in str(error.value) and "{'image': 'file.png'}" in str(error.value)
    assert "--folds [0, 1], with --score intra" in str(error.value)


def test_fields_that_only_some_have_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, unlabeled=[{"image": "u.png", "z": 3}])
    with pytest.raises(ValueError, match="5 of 6 items lack 'z'"):
        ddad_items(path, None, 3)


@pytest.mark.parametrize(("fold", "num_normal"), [(-1, 3), (0, 0)])
def test_numbers_outside_their_range(fold: int, num_normal: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"got {fold} and {num_normal}"):
        ddad_items(_write(tmp_path), None, fold, num_normal)


def test_a_pre_training_learns_from_what_nothing_is_measured_on(tmp_path: Path) -> None:
    datalist = _write(tmp_path)
    assert _names(pretraining_items(datalist)) == _names(pretraining_items(datalist, ["training"])) == HEALTHY
    items = pretraining_items(datalist, ["unlabeled", "training"], tmp_path)
    assert _names(items) == [*[f"u{i}.png" for i in range(4)], *HEALTHY]
    for section in ("testing", "validation"):
        for sections in (section, ["training", section]):
            with pytest.raises(ValueError, match=rf"sections must not be .*, got .'{section}'.: take 'training'"):
                pretraining_items(datalist, sections)
