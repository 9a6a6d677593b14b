# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from monai_anomaly.data import pseudo_labeled_items
from monai_anomaly.handlers import PseudoLabelWriter

# probability of "abnormal" of each image, and what it is
SCORES = [0.9, 0.6, 0.1, 0.4, 0.8, 0.2, 0.55]
TARGETS = [1, 0, 0, 1, 1, 0, 1]


def write_datalist(folder: Path, targets: list[int | None]) -> Path:
    items = [{"image": f"u/{i}.png", "target": target} for i, target in enumerate(targets)]
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": [{"image": "t.png"}], "unlabeled": items}))
    return path


def run(
    folder: Path,
    scores: list[float] = SCORES,
    targets: list[int] | None = None,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Any:
    """An evaluation of images in batches of two, the scores of which are given; what is written."""

    def update(engine: Engine, indices: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "image": MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": str(folder / f"u/{i}.png")}),
                "score": torch.tensor([scores[i]], dtype=dtype),
                "patient": f"p{i}",
                "index": i,
                **({} if targets is None else {"target": targets[i]}),
            }
            for i in indices
        ]

    engine = Engine(update)
    PseudoLabelWriter(folder / "out", folder, **settings).attach(engine)
    order = list(range(len(scores)))
    engine.run([order[i : i + 2] for i in range(0, len(order), 2)])
    return json.loads((folder / "out/pseudo_labels.json").read_text())


def test_the_surest_half_of_each_predicted_class(tmp_path: Path) -> None:
    content = run(tmp_path)
    # abnormal: 0.9, 0.8, 0.6, 0.55; normal: 0.9, 0.8, 0.6 of "normal"
    assert content["abnormal"] == ["u/0.png", "u/4.png"] and content["normal"] == ["u/2.png", "u/5.png"]
    assert content["thresholds"]["normal"] == pytest.approx(0.8)
    assert content["thresholds"]["abnormal"] == pytest.approx(0.8)
    assert content["counts"] == {"unlabeled": 7, "normal": 2, "abnormal": 2, "left_out": 3}
    assert content["purity"] == {"normal": None, "abnormal": None}
    assert (content["percent"], content["mode"], content["section"]) == (50.0, "per_predicted_class", "unlabeled")


def test_percent_and_mode_are_passed_on(tmp_path: Path) -> None:
    assert len(run(tmp_path, percent=100)["abnormal"]) == 4
    content = run(tmp_path, scores=[0.1, 0.2, 0.3, 0.4], mode="global")
    assert content["abnormal"] == ["u/2.png", "u/3.png"] and content["normal"] == ["u/0.png", "u/1.png"]


def test_purity_is_the_share_that_is_what_it_is_called(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = write_datalist(tmp_path, list(TARGETS))
    with caplog.at_level(logging.INFO):
        content = run(tmp_path, datalist=datalist, percent=100)
    assert content["abnormal"] == [f"u/{i}.png" for i in (0, 1, 4, 6)]
    assert content["normal"] == [f"u/{i}.png" for i in (2, 3, 5)]
    assert content["purity"] == {"normal": pytest.approx(2 / 3), "abnormal": pytest.approx(3 / 4)}
    assert "'abnormal': 4" in caplog.text and "0.75" in caplog.text


def test_scores_are_not_rounded(tmp_path: Path) -> None:
    content = run(tmp_path, [0.5 - 1e-9, 0.5], dtype=torch.float64)
    assert content["normal"] == ["u/0.png"] and content["abnormal"] == ["u/1.png"]
    assert content["thresholds"]["normal"] == pytest.approx(0.5 + 1e-9, abs=1e-12)


def test_purity_is_told_only_where_all_is_known(tmp_path: Path) -> None:
    datalist = write_datalist(tmp_path, [1, 0, None, 1, 1, 0, 1])
    assert run(tmp_path, datalist=datalist, percent=100)["purity"] == {"normal": None, "abnormal": 0.75}


def test_purity_of_test_images_is_that_of_their_targets(tmp_path: Path) -> None:
    datalist = write_datalist(tmp_path, [0] * 7)  # of other images: the section is not that of the file
    content = run(tmp_path, targets=TARGETS, datalist=datalist, percent=100, section="testing")
    assert content["section"] == "testing" and content["purity"]["abnormal"] == 0.75


def test_what_is_chosen_does_not_depend_on_targets(tmp_path: Path) -> None:
    before = run(tmp_path)
    for targets in (TARGETS, [1 - target for target in TARGETS]):
        content = run(tmp_path, targets=targets, datalist=write_datalist(tmp_path, list(targets)))
        assert [content[name] for name in ("normal", "abnormal")] == [before[name] for name in ("normal", "abnormal")]


def test_stage_2_finds_the_images_that_are_named(tmp_path: Path) -> None:
    datalist = write_datalist(tmp_path, list(TARGETS))
    run(tmp_path)
    items = pseudo_labeled_items(datalist, 1, tmp_path / "out/pseudo_labels.json")
    assert [item["image"] for item in items] == [str(tmp_path / "u/0.png"), str(tmp_path / "u/4.png")]


def test_nothing_abnormal_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no unlabeled image is called abnormal.*--pseudo_label_mode global"):
        run(tmp_path, scores=[0.1, 0.2, 0.3])
    content = json.loads((tmp_path / "out/pseudo_labels.json").read_text())
    assert content["abnormal"] == [] and content["thresholds"]["abnormal"] is None and content["normal"]


def test_nothing_normal_is_none(tmp_path: Path) -> None:
    content = run(tmp_path, scores=[0.7, 0.8, 0.9])
    assert content["normal"] == [] and content["thresholds"]["normal"] is None and len(content["abnormal"]) == 2


@pytest.mark.parametrize(("settings", "message"), [({"percent": 0}, "percent"), ({"mode": "all"}, "mode")])
def test_wrong_arguments_before_any_work(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{message} must be"):
        PseudoLabelWriter(tmp_path, tmp_path, **settings)
