# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from monai_anomaly.benchmark.matrix import Matrix
from monai_anomaly.benchmark.plan import plan
from monai_anomaly.bundle.build import build_bundle
from monai_anomaly.data import convert_folder

REPOSITORY = Path(__file__).resolve().parents[2]
CONTENT: dict[str, Any] = {
    "name": "small",
    "datasets": {"sample": {"seeds": [0, 1], "overrides": {"max_epochs": 2}}},
    "trainings": {"plain": {"bundle": "ae"}, "slow": {"bundle": "ae", "overrides": {"learning_rate": 1e-5}}},
    "evaluations": {"rec": {}},
    "rows": [{"label": "AE", "cells": {"plain": ["plain", "rec"], "slow": ["slow", "rec"]}}],
}


def write_matrix(folder: Path, **changes: Any) -> Path:
    """A matrix file with some keys changed."""
    path = folder / "matrix.json"
    path.write_text(json.dumps(CONTENT | changes))
    return path


def test_jobs_are_data_sets_times_seeds_times_trainings(tmp_path: Path) -> None:
    jobs = Matrix.read(write_matrix(tmp_path)).jobs()
    assert [(job.dataset, job.seed, job.training) for job in jobs] == [
        ("sample", 0, "plain"),
        ("sample", 0, "slow"),
        ("sample", 1, "plain"),
        ("sample", 1, "slow"),
    ]
    assert jobs[3].overrides == {"max_epochs": 2, "learning_rate": 1e-5, "seed": 1}
    assert len({job.folder for job in jobs}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "the matrix has no key 'extra'; known are name, "),
        ({"datasets": {"sample": {"seeds": [0], "where-eval": {}}}}, "where-eval"),
        ({"datasets": {"sample": {}}}, "needs seeds"),
        ({"rows": [{"label": "AE", "cells": {"plain": ["missing", "rec"]}}]}, "names nothing: missing"),
        ({"rows": [{"label": "AE", "cells": {"plain": ["plain", "missing"]}}]}, "names nothing: plain, missing"),
        ({"trainings": {"plain": {"overrides": {}}}}, "'plain' needs bundle"),
        ({"trainings": {"plain": {"bundle": "ae", "epochs": 1}}}, "epochs"),
        ({"trainings": {"plain": {"bundle": "ae", "configs": []}}}, "'plain': configs must be"),
        ({"trainings": {"plain": {"bundle": "ae", "configs": [{"files": ["train"]}]}}}, "configs must be"),
        ({"trainings": {"plain": {"bundle": "ae", "evaluations": ["other"]}}}, "not there: .'other'"),
        ({"trainings": {"plain": {"bundle": "ae", "evaluations": []}}}, "names nothing: plain, rec"),
        ({"trainings": {"plain": {"bundle": "ae", "uses": {"x": ["other", "model.pt"]}}}}, "'x' as"),
        ({"trainings": {"plain": {"bundle": "ae", "uses": {"x": ["plain", "model.pt"]}}}}, "one of them must be first"),
        ({"datasets": {"sample": {"seeds": [0], "unlabeled": {"share": 1}}}}, "share"),
        ({"datasets": {"sample": {"seeds": [0], "unlabeled": {"size": 4}}}}, "'sample': .* without ratio"),
        ({"compare_with": "none"}, "compare_with must be the label of a row"),
    ],
)
def test_a_wrong_matrix_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matrix.read(write_matrix(tmp_path, **changes))


def test_data_that_are_not_embedded_need_a_folder(tmp_path: Path) -> None:
    matrix = Matrix.read(write_matrix(tmp_path, datasets={"nih": {"index": "cxr/index.csv", "seeds": [0]}}))
    with pytest.raises(ValueError, match="--data"):
        matrix.prepare(None, tmp_path)


def chain(**changes: Any) -> Matrix:
    """A matrix in which one training uses another's file, on a data set of two ratios."""
    trainings = {
        "last": {"bundle": "amae_stage1", "uses": {"start_weights": ["first", "models/model.pt"]}},
        "first": {"bundle": "mae_pretrain", "ignores_unlabeled": True},
    }
    datasets = {"x": {"index": "index.csv", "unlabeled": {"ratio": [0.0, 0.5], "size": 2}, "seeds": [0, 1]}}
    return Matrix(**CONTENT | {"datasets": datasets, "trainings": trainings, "rows": []} | changes)


def test_what_is_used_comes_first_and_is_shared_by_the_ratios() -> None:
    matrix = chain()
    matrix.check()
    assert [job.folder.as_posix() for job in matrix.jobs()] == [
        "x/first/seed0",
        "x@0/last/seed0",
        "x/first/seed1",
        "x@0/last/seed1",
        "x@0.5/last/seed0",
        "x@0.5/last/seed1",
    ]
    cells = matrix.jobs_by_cell()
    assert cells["x@0", "first", 1] is cells["x@0.5", "first", 1]
    assert cells["x@0.5", "last", 1].uses["start_weights"] == (cells["x@0", "first", 1], "models/model.pt")
    assert "unlabeled" not in cells["x@0", "first", 0].source
    assert cells["x@0.5", "last", 0].source["unlabeled"] == {"ratio": 0.5, "size": 2}


def test_a_training_that_ignores_unlabeled_images_cannot_use_one_that_does_not() -> None:
    trainings = {
        "last": {"bundle": "ae", "ignores_unlabeled": True, "uses": {"start_weights": ["first", "model.pt"]}},
        "first": {"bundle": "mae_pretrain"},
    }
    with pytest.raises(ValueError, match="'last' ignores unlabeled images, so must 'first'"):
        chain(trainings=trainings).check()


def test_the_origin_of_a_result_tells_of_all_before_it() -> None:
    before = chain().jobs_by_cell()["x@0", "last", 0].origin("rec")
    trainings = chain().trainings
    changed = {**trainings, "first": {**trainings["first"], "overrides": {"max_epochs": 3}}}
    after = chain(trainings=changed).jobs_by_cell()["x@0", "last", 0].origin("rec")
    assert before != after and before["training"] == after["training"]
    # an old matrix says what it always said, so that its results stay valid
    plain = Matrix(**CONTENT).jobs()[0].origin("rec")
    assert plain == {"bundle": "ae", "source": {}, "training": {"max_epochs": 2, "seed": 0}, "evaluation": {}}


def test_each_seed_draws_its_own_unlabeled_images(tmp_path: Path) -> None:
    splits = ["train_normal", "test", *["unlabeled"] * 12]
    rows = "".join(f"{i}.png,{i % 2 if split == 'unlabeled' else 0},p{i},{split}\n" for i, split in enumerate(splits))
    (tmp_path / "index.csv").write_text("image,label,patient,split\n" + rows)
    data = chain().prepare(tmp_path, tmp_path / "out")
    assert set(data) == {"x", "x@0/seed0", "x@0/seed1", "x@0.5/seed0", "x@0.5/seed1"}
    unlabeled = {name: json.loads(Path(paths["datalist"]).read_text())["unlabeled"] for name, paths in data.items()}
    assert len(unlabeled["x"]) == 12
    for name, targets in (("x@0", [0, 0]), ("x@0.5", [0, 1])):
        drawn = [unlabeled[f"{name}/seed{seed}"] for seed in (0, 1)]
        assert all(sorted(item["target"] for item in items) == targets for items in drawn)
        assert drawn[0] != drawn[1]
    all_kept = chain(datasets={"x": {"index": "index.csv", "unlabeled": None, "seeds": [0]}})
    assert set(all_kept.prepare(tmp_path, tmp_path / "kept")) == {"x"}


@pytest.mark.parametrize(
    ("name", "jobs", "reference"),
    # ablations: 3 shared by all ratios, 5 for each of 6 ratios, 3 seeds; data sets: 3 + 1 + 1 + 1 seeds
    [("amae_ablations", (3 + 5 * 6) * 3, "AMAE"), ("dual_distribution", 10 * 6, "AMAE")],
)
def test_the_matrices_of_two_distributions_are_complete(
    name: str, jobs: int, reference: str, tmp_path: Path, shared_data: Path
) -> None:
    matrix = Matrix.read(REPOSITORY / "bench" / f"{name}.json")
    assert len(matrix.jobs()) == jobs and reference in str(matrix.compare_with)
    data = matrix.prepare(shared_data, tmp_path)
    for job in matrix.jobs():
        items = json.loads(Path(data[job.data]["datalist"]).read_text())["unlabeled"]
        draw = job.source.get("unlabeled") or {}
        if "ratio" in draw:
            assert sum(item["target"] for item in items) == round(40 * draw["ratio"]) and len(items) == 40
    if name == "dual_distribution":  # an eye that is in the test set too
        items = json.loads(Path(data["idrid/seed0"]["datalist"]).read_text())["unlabeled"]
        assert len(items) == 33 and "images/idrid_train_083.png" not in [item["image"] for item in items]


def test_table_2_is_complete(tmp_path: Path, shared_data: Path) -> None:
    matrix = Matrix.read(REPOSITORY / "bench" / "d2ue_table2.json")
    data = matrix.prepare(shared_data, tmp_path)
    assert set(data) == {"sample", "nih", "lgg_flair", "brain_tumor_mri"}
    assert matrix.datasets["sample"]["seeds"] == [0, 1, 2]
    assert len(matrix.rows) == 5 and all(set(row["cells"]) == {"AE", "MemAE", "AE-U"} for row in matrix.rows)
    # the index's README: 170 healthy and 179 anomalous test slices whose levels are matched
    testing = json.loads(Path(data["lgg_flair"]["datalist"]).read_text())["testing"]
    assert [sum(item["target"] == target for item in testing) for target in (0, 1)] == [170, 179]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"matrix\.json is no valid JSON .*line 1"),
        ("[]", r"matrix\.json: a matrix is an object with the keys name, datasets, .* this is a list"),
        ('{"training": [], "testing": []}', r'this is a datalist, not a matrix: name it in one, "datasets": \{"mine"'),
        (
            {key: CONTENT[key] for key in ("name", "rows")},
            "lacks 'datasets', 'trainings', 'evaluations'; write such as\n",
        ),
        ({"rows": {}}, "the matrix: 'rows' must be a list, it is an object"),
        ({"rows": ["AE"]}, r"row 1 must be an object, it is 'AE'; write \"rows\": "),
        ({"rows": [*CONTENT["rows"], {"label": "x"}]}, r"row 2 lacks 'cells'; write such as\n  \"cells\": \{"),
        ({"rows": [{"cells": {}}]}, "row 1 lacks 'label'"),
        ({"rows": [{"label": "x", "cells": {"a": "plain"}}]}, "row 1, column 'a' is 'plain'; write \"cells\": "),
        (
            {"datasets": {"mine": "my_images.json"}},
            r"datasets: 'mine' must be an object, it is 'my_images\.json'; write",
        ),
        ({"trainings": {"plain": ["ae"]}}, "trainings: 'plain' must be an object, it is a list"),
    ],
)
def test_a_wrong_file_says_what_is_missing_and_what_to_write(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "matrix.json"
    if isinstance(content, dict):
        content = json.dumps(content if "name" in content else CONTENT | content)
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Matrix.read(path)


@pytest.mark.parametrize(
    "source",
    [
        {"datalist": "a.json", "index": "a.csv"},
        {"datalist": "a.json", "where": {}},
        {"dataset_dir": "a"},
    ],
)
def test_a_data_set_comes_from_one_place(source: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'mine' needs a datalist .* or an index"):
        Matrix.read(write_matrix(tmp_path, datasets={"mine": source | {"seeds": [0]}}))


def test_a_datalist_of_a_folder_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"normal/{i}.png" for i in range(8)):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 9).save(tmp_path / "images" / name)
    (tmp_path / "images" / "abnormal").mkdir()
    for name in "xy":
        Image.new("L", (8, 8), 99).save(tmp_path / "images" / "abnormal" / f"{name}.png")
    convert_folder(tmp_path / "images", tmp_path / "my_images.json")
    matrix = write_matrix(
        tmp_path, datasets={"mine": {"datalist": "my_images.json", "dataset_dir": "images", "seeds": [0]}}
    )
    expected = {"datalist": str(tmp_path / "my_images.json"), "dataset_dir": str(tmp_path / "images")}
    assert Matrix.read(matrix).prepare(str(tmp_path), tmp_path / "out") == {"mine": expected}
    monkeypatch.chdir(tmp_path)
    assert Matrix.read(matrix).prepare(None, tmp_path / "out") == {"mine": expected}
    (tmp_path / "images" / "abnormal" / "x.png").unlink()
    with pytest.raises(ValueError, match=r"x\.png"):
        Matrix.read(matrix).prepare(None, tmp_path / "out")


def test_bundles_are_recipes_or_folders_with_names_of_their_own(tmp_path: Path) -> None:
    own = build_bundle("ae", tmp_path).rename(tmp_path / "mine")
    folder = {"plain": {"bundle": str(own)}, "slow": {"bundle": "ae"}}
    jobs = plan(Matrix(**CONTENT | {"trainings": folder}), None, tmp_path / "out")
    configs = {Path(job["steps"][0]["configs"][0]).parents[1].name for job in jobs}
    assert configs == {"mine", "ae"} and (tmp_path / "out/bundles/mine/configs/evaluate.json").is_file()
    for wrong, message in (
        (str(tmp_path / "mine" / "configs"), "configs is not the folder of a bundle: it has no configs"),
        ("autoencoder", "bundles cannot be made: error: name must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(Matrix(**CONTENT | {"trainings": folder | {"slow": {"bundle": wrong}}}), None, tmp_path / "out")
    twice = folder | {"slow": {"bundle": str(build_bundle("ae", tmp_path / "other").rename(tmp_path / "other/mine"))}}
    with pytest.raises(ValueError, match="different names"):
        plan(Matrix(**CONTENT | {"trainings": twice}), None, tmp_path / "out")
