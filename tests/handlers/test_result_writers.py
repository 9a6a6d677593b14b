# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_case import COUNT, Blurrer, dataset, evaluate, infer, phantom
from ignite.engine import Engine, Events
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomaly.data import load_datalist
from monai_anomaly.functional.bootstrap import bootstrap_scores
from monai_anomaly.functional.curves import average_precision_from_counts, roc_auc_from_counts
from monai_anomaly.handlers import AnomalyMetrics, MetricsWriter, ScoresWriter
from monai_anomaly.handlers.result_writers import audit_scores, format_metrics
from monai_anomaly.utils import read_csv, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("data") / "set")


def names(folder: Path) -> list[str]:
    """Files in a folder, but for the marks of who works in it."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".run")]


def read_scores(path: Path) -> list[dict[str, str]]:
    with open(path / "scores.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def scores_of(samples: Any) -> list[float]:
    """The score of each image, by itself."""
    return [float(infer(samples[i]["image"].as_tensor()[None], Blurrer())["score"]) for i in range(COUNT)]


def audit(folder: Path, scores: dict[str, Sequence[float | None]], files: Sequence[str], **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    baselines = {name: {"testing": {"image_auroc": 0.5, "scores": list(values)}} for name, values in scores.items()}
    content = {"baselines": baselines, "images": {"testing": list(files)}, "warnings": [], **more}
    (folder / "audit.json").write_text(json.dumps(content), encoding="utf-8")


def files_of(folder: Path) -> list[str]:
    return [item["image"] for item in load_datalist(folder / "datalist.json", "testing")]


def write_metrics(folder: Path, output: Path, edit: Any = None, **options: Any) -> dict[str, Any]:
    evaluate(dataset(folder, edit), [AnomalyMetrics(num_draws=40), MetricsWriter(output, **options)])
    content: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("order", [range(COUNT), [7, 2, 8, 0, 1, 6, 5, 3, 4]])
def test_scores_read_back_equal_in_the_order_of_the_datalist(
    folder: Path, tmp_path: Path, order: Sequence[int]
) -> None:
    samples = dataset(folder)
    evaluate(samples, [ScoresWriter(tmp_path / "new", base_dir=folder)], order)
    rows = read_scores(tmp_path / "new")
    assert [row["image"] for row in rows] == [f"images/testing_{i:03d}.png" for i in range(COUNT)]
    assert [row["patient"] for row in rows] == [f"testing_{i:03d}" for i in range(COUNT)]
    assert [row["target"] for row in rows] == [str(i % 2) for i in range(COUNT)]
    written = np.array([float(row["score"]) for row in rows])
    assert np.array_equal(written.astype(np.float32).astype(float), written), "every digit of a float32 is there"
    assert np.allclose(written, scores_of(samples), rtol=1e-6)


def test_file_names_relative_or_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = dataset(folder)
    monkeypatch.chdir(folder)
    given = {"whole": None, "relative": "../set", "elsewhere": tmp_path}
    writers = [ScoresWriter(tmp_path / name, base) for name, base in given.items()]
    evaluate(samples, writers)
    first = {name: read_scores(tmp_path / name)[0]["image"] for name in given}
    whole = (folder / "images" / "testing_000.png").as_posix()
    assert first == {"whole": whole, "relative": "images/testing_000.png", "elsewhere": whole}


def test_images_that_come_twice_are_written_once(folder: Path, tmp_path: Path) -> None:
    evaluate(dataset(folder), [ScoresWriter(tmp_path)], [*range(COUNT), 3, 0])
    assert len(read_scores(tmp_path)) == COUNT


def test_what_an_image_lacks_is_an_empty_cell(folder: Path, tmp_path: Path) -> None:
    def edit(items: list[dict[str, Any]]) -> None:
        for i, item in enumerate(items):
            item["target"] = -1 if i else 0
            item.pop("label", None)

    evaluate(dataset(folder, edit), [ScoresWriter(tmp_path)])
    assert [row["target"] for row in read_scores(tmp_path)] == ["0"] + [""] * (COUNT - 1)


class OneByOne:
    """An engine's handler that replaces the output by bare dictionaries, as a plain Ignite engine would give."""

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        engine.state.output = [{"score": item["score"]} for item in engine.state.output]


def test_bare_items_have_a_score_only_and_keep_their_order(folder: Path, tmp_path: Path) -> None:
    samples, order = dataset(folder), [4, 2, 0]
    evaluate(samples, [OneByOne(), ScoresWriter(tmp_path)], order)
    rows = read_scores(tmp_path)
    assert [(row["image"], row["patient"], row["target"]) for row in rows] == [("", "", "")] * 3
    expected = scores_of(samples)
    assert np.allclose([float(row["score"]) for row in rows], [expected[i] for i in order], rtol=1e-6)


def test_metrics_baselines_and_intervals(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    good, bad = (draw.normal(size=COUNT) + sign * np.arange(COUNT) % 2 for sign in (1, -1))
    warning = {"code": "c", "message": "look out", "remedy": "r"}
    audit(tmp_path, {"good_one": good.tolist(), "bad": bad.tolist()}, files_of(folder), warnings=[warning])
    content = write_metrics(folder, tmp_path, method="Blur", settings={"seed": 3}, num_draws=60)
    scores, targets = np.array(scores_of(dataset(folder))), np.arange(COUNT) % 2
    assert content["method"] == "Blur" and content["settings"]["seed"] == 3
    assert content["settings"]["bootstrap_draws"] == 40
    assert content["warnings"][0] == "look out"
    assert content["metrics"]["image_auroc"]["value"] == pytest.approx(roc_auc_score(targets, scores))
    assert content["metrics"]["pixel_best_dice"]["oracle"] is True
    assert set(content["baselines"]) == {"good_one", "bad"} and len(content["warnings"]) == 1
    for name, values in {"good_one": good, "bad": bad}.items():
        expected = bootstrap_scores(
            {"image_auroc": roc_auc_from_counts, "image_ap": average_precision_from_counts},
            torch.from_numpy(values),
            torch.from_numpy(targets),
            [f"p{i}" for i in range(COUNT)],
            60,
        )
        for metric, entry in content["baselines"][name].items():
            assert entry == {key: expected[metric][key] for key in ("value", "low", "high")}
        assert content["baselines"][name]["image_auroc"]["value"] == pytest.approx(roc_auc_score(targets, values))
        assert content["baselines"][name]["image_ap"]["value"] == pytest.approx(
            average_precision_score(targets, values)
        )
    printed = capsys.readouterr().out
    assert format_metrics(content) in printed
    assert "good_one (no learning)" in printed and "(oracle threshold)" in printed and "warning: look out" in printed


def test_without_an_audit_there_are_no_baselines(folder: Path, tmp_path: Path) -> None:
    content = write_metrics(folder, tmp_path / "deep" / "folder")
    assert content["baselines"] == {} and content["metrics"]["image_auroc"]["value"] is not None


def test_baselines_leave_out_images_that_have_no_score_or_no_target(folder: Path, tmp_path: Path) -> None:
    scores = [0.5, 0.7, None, 0.9, 0.1, 0.2, 0.3, 0.8, 99.0]
    audit(tmp_path, {"some": scores, "none": [None] * COUNT}, files_of(folder))
    content = write_metrics(folder, tmp_path, num_draws=0)
    kept = [0, 1, 3, 4, 5, 6, 7, 8]
    expected = roc_auc_score([i % 2 for i in kept], [scores[i] for i in kept])
    assert content["baselines"]["some"]["image_auroc"] == {"value": pytest.approx(expected), "low": None, "high": None}
    assert "none" not in content["baselines"]
    rows = [{"image": f"{i}", "patient": None, "target": i % 2 if i < 8 else None, "index": i} for i in range(COUNT)]
    expected = roc_auc_score([i % 2 for i in kept[:-1]], [scores[i] for i in kept[:-1]])
    table = MetricsWriter(tmp_path, num_draws=0)._baselines({"some": scores}, rows)
    assert table["some"]["image_auroc"]["value"] == pytest.approx(expected)


def test_baselines_of_a_part_of_the_images_are_those_of_the_same_files(folder: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(size=COUNT)
    audit(tmp_path, {"some": values.tolist()}, files_of(folder))
    part = [6, 1, 3, 2]
    evaluate(dataset(folder), [AnomalyMetrics(num_draws=0), MetricsWriter(tmp_path, num_draws=0)], part)
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    expected = roc_auc_score([i % 2 for i in part], values[part])
    assert content["baselines"]["some"]["image_auroc"]["value"] == pytest.approx(expected)
    assert content["warnings"] == []


def test_baselines_of_other_images_are_left_out_with_a_warning(folder: Path, tmp_path: Path) -> None:
    audit(tmp_path, {"some": [0.5] * COUNT}, [f"/elsewhere/{i}.png" for i in range(COUNT)])
    content = write_metrics(folder, tmp_path)
    assert content["baselines"] == {}
    assert content["warnings"][0].startswith(f"the trivial baselines stand for 0 of the {COUNT} evaluated images")


def test_scores_of_the_audit_by_file_section_and_order() -> None:
    found = {
        "images": {"validation": ["/v/0.png"], "testing": ["/t/0.png", "/t/1.png"]},
        "baselines": {"a": {"validation": {"scores": [0.1]}, "testing": {"scores": [0.2, None]}}},
    }
    files = [{"source": name} for name in ("/t/1.png", "/t/0.png", "/v/0.png", "/new.png")]
    assert audit_scores(found, ["validation", "testing"], files) == {"a": [None, 0.2, 0.1, None]}
    assert audit_scores(found, "testing", files) == {"a": [None, 0.2, None, None]}
    assert audit_scores(found, "testing", [{"source": ""}] * 2) == {"a": [0.2, None]}
    found["images"]["training"] = ["/h/0.png"]  # never scored
    assert audit_scores(found, ["training", "testing"], files) == {"a": [None, 0.2, None, None]}
    assert audit_scores(found, "testing", [{"source": ""}] * 3) == {} == audit_scores({}, "testing", files)


def test_one_class_gives_undefined_metrics_not_a_crash(folder: Path, tmp_path: Path) -> None:
    def edit(items: list[dict[str, Any]]) -> None:
        for item in items:
            item["target"] = 0
            item.pop("label", None)

    audit(tmp_path, {"some": [float(i) for i in range(COUNT)]}, files_of(folder))
    with pytest.warns(UserWarning, match="undefined metrics"):
        content = write_metrics(folder, tmp_path, edit)
    assert content["metrics"]["image_auroc"]["value"] is None
    assert content["baselines"]["some"]["image_auroc"] == {"value": None, "low": None, "high": None}
    assert "undefined" in format_metrics(content)


def test_settings_of_the_training_stand_beside_a_file_of_weights_or_in_the_folds(folder: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert write_metrics(folder, tmp_path, checkpoint=runs)["settings"]["training"] == "unknown"
    for fold in (10, 0, 2):
        write_json(runs / f"fold_{fold}/models/training.json", {"seed": 1, "fold": fold, "size": [2, fold // 10]})
    settings = write_metrics(folder, tmp_path, checkpoint=runs)["settings"]
    assert settings["checkpoint"] == "runs"
    assert settings["training"] == {"seed": 1, "fold": [0, 2, 10], "size": [[2, 0], [2, 0], [2, 1]]}
    (runs / "fold_2/models/model.pt").touch()
    settings = write_metrics(folder, tmp_path, checkpoint=runs / "fold_2/models/model.pt")["settings"]
    assert settings["training"] == {"seed": 1, "fold": 2, "size": [2, 0]}


def test_images_without_a_patient_are_their_own(folder: Path, tmp_path: Path) -> None:
    values = [0.1, 0.6, 0.5, 0.9, 0.3, 0.2, 0.4, 0.8, 0.7]
    rows = [{"image": "", "patient": None, "target": i % 2, "score": 0.0, "index": i} for i in range(COUNT)]
    writer = MetricsWriter(tmp_path, num_draws=50)
    table = writer._baselines({"some": values}, rows)
    named = [{**row, "patient": f"p{row['index']}"} for row in rows]
    assert table == writer._baselines({"some": values}, named)
    assert table["some"]["image_auroc"]["low"] < table["some"]["image_auroc"]["high"]


def test_anomalous_images_without_a_mask_count_for_the_image_metrics_only(folder: Path, tmp_path: Path) -> None:
    def edit(items: list[dict[str, Any]]) -> None:
        for item in items[1:6]:
            item.pop("label", None)  # of two anomalous images nobody drew the lesions

    content, whole = write_metrics(folder, tmp_path / "a", edit), write_metrics(folder, tmp_path / "b")
    assert content["metrics"]["image_auroc"] == whole["metrics"]["image_auroc"]
    assert content["metrics"]["pixel_ap"]["value"] != whole["metrics"]["pixel_ap"]["value"]
    assert 0 < content["counts"]["pixel_prevalence"] < 1


def test_a_spreadsheet_does_not_calculate_names(tmp_path: Path) -> None:
    names = ["=1+1.png", "-x.png", "a=b.png", "'=1"]
    rows = [{"image": name, "patient": f"@{name}", "target": 0, "score": -0.5} for name in names]
    ScoresWriter(tmp_path).write(Engine(lambda engine, batch: None), rows)
    shown = read_scores(tmp_path)
    assert not [cell for row in shown for cell in (row["image"], row["patient"]) if cell[0] in "=+-@"]
    assert {row["score"] for row in shown} == {"-0.5"}
    assert [(row["image"], row["patient"]) for row in read_csv(tmp_path / "scores.csv")] == [
        (n, f"@{n}") for n in names
    ]


@pytest.mark.parametrize(("name", "writer"), [("scores.csv", ScoresWriter), ("metrics.json", MetricsWriter)])
def test_a_failed_write_leaves_the_old_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, writer: Any
) -> None:
    (tmp_path / name).write_text("old", encoding="utf-8")

    def fail(*_: Any) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        evaluate(dataset(folder), [AnomalyMetrics(num_draws=0), writer(tmp_path)])
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "old"


def test_one_writer_serves_several_evaluations(folder: Path, tmp_path: Path) -> None:
    writer, samples = ScoresWriter(tmp_path), dataset(folder)
    evaluate(samples, [writer])
    evaluate(samples, [writer], [1, 2])
    assert [row["patient"] for row in read_scores(tmp_path)] == ["testing_001", "testing_002"]


class FailingMetric:
    """A handler that dies when the scores are known but nothing else is."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.fail)

    def fail(self, engine: Engine) -> None:
        raise RuntimeError("no metric today")


def test_scores_before_a_bad_image_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    samples = dataset(folder)
    with pytest.raises(IndexError, match="-100 is out of range"):
        evaluate(samples, [ScoresWriter(tmp_path, base_dir=folder)], [0, 1, 2, 3, 4, -100, 5, 6])
    assert names(tmp_path) == ["scores.partial.csv"]
    with open(tmp_path / "scores.partial.csv", encoding="utf-8", newline="") as stream:
        partial = list(csv.DictReader(stream))
    evaluate(samples, [ScoresWriter(tmp_path, base_dir=folder)])
    assert partial == read_scores(tmp_path)[:4]
    assert names(tmp_path) == ["scores.csv"]


def test_an_error_before_the_first_image_is_the_one_that_is_seen(folder: Path, tmp_path: Path) -> None:
    class FailingLoader:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.STARTED, self.fail)

        def fail(self, engine: Engine) -> None:
            raise RuntimeError("no weights today")

    with pytest.raises(RuntimeError, match="no weights today"):
        evaluate(dataset(folder), [FailingLoader(), ScoresWriter(tmp_path)])
    assert not names(tmp_path)


def test_scores_survive_a_later_failure(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no metric today"):
        evaluate(dataset(folder), [FailingMetric(), ScoresWriter(tmp_path)])
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == COUNT + 1


def test_what_learned_from_the_test_images_is_marked(folder: Path, tmp_path: Path) -> None:
    """Whether the audit says so, or only the settings of the training do."""
    assert "transductive" not in write_metrics(folder, tmp_path / "none")
    told = {"message": "transductive: the method learns from the 9 test images", "code": "transductive"}
    other = {"message": "look out", "code": "c"}
    audit(tmp_path / "audit", {}, files_of(folder), unlabeled="transductive", warnings=[other, told])
    content = write_metrics(folder, tmp_path / "a", audit_dir=tmp_path / "audit")
    assert content["transductive"] is True
    assert content["warnings"] == [told["message"], "look out"]
    for fold, value in ((0, False), (1, True)):
        write_json(tmp_path / f"runs/fold_{fold}/models/training.json", {"fold": fold, "transductive": value})
    content = write_metrics(folder, tmp_path / "b", checkpoint=tmp_path / "runs")
    assert content["transductive"] is True and content["warnings"][0].startswith("transductive: the method learned")
    checkpoint = tmp_path / "runs/fold_0/models/model.pt"
    assert "transductive" not in write_metrics(folder, tmp_path / "c", checkpoint=checkpoint)
