# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_anomaly.benchmark.comparison import Method, compare_with_best, comparison_matrix, evaluation_folders
from monai_anomaly.bundle.build import build_bundle
from monai_anomaly.cli.main import main
from monai_anomaly.cli.runs import training_configurations
from monai_anomaly.data import make_phantom
from monai_anomaly.functional.bootstrap import draw_multiplicities

DRAW = np.random.default_rng(0)
TARGETS = np.array([0, 1] * 10)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for name in ("ae", "dae", "ddad", "diffusion_restoration"):
        build_bundle(name, folder)
    return folder


def methods(folder: Path, *names: str) -> list[Method]:
    return [Method(name, folder / name, training_configurations(folder / name)) for name in names]


def test_each_method_is_trained_as_a_whole_with_the_settings_it_has(bundles: Path, tmp_path: Path) -> None:
    chosen = methods(bundles, "ae", "ddad", "diffusion_restoration")
    settings = {"max_epochs": 2, "hidden_channels": 4, "train#trainer#amp": True}
    datalist = make_phantom(tmp_path, size=16, num_training=1, num_testing=2)
    matrix = comparison_matrix(chosen, datalist, None, [0, 3], settings)
    configs = {name: training["configs"] for name, training in matrix.trainings.items()}
    assert configs == {
        "ae": [["train"]],
        "ddad": [["train", "evaluate", "all_folds", "pipeline"]],
        "diffusion_restoration": [["train", "all_folds"]],
    }
    overrides = {name: training["overrides"] for name, training in matrix.trainings.items()}
    without = {key: value for key, value in settings.items() if key != "hidden_channels"}
    assert overrides == {"ae": settings, "ddad": settings, "diffusion_restoration": without}
    assert matrix.evaluations["ae"] == {"save_maps": True}
    assert matrix.evaluations["ddad"]["score"] == "refined_dual", "as its pipeline is scored"
    again = comparison_matrix(chosen, None, None, [0], {"score": "inter"})
    assert "score" not in again.evaluations["ddad"] and again.trainings["ddad"]["overrides"] == {"score": "inter"}
    source = {"datalist": str(datalist), "dataset_dir": str(tmp_path), "seeds": [0, 3]}
    assert matrix.datasets == {"images": source} and again.datasets == {"images": {"seeds": [0]}}
    assert evaluation_folders(matrix, "out")["ae"] == [Path(f"out/images/ae/seed{seed}/ae") for seed in (0, 3)]


def test_a_setting_of_none_and_a_name_of_two_are_refused(bundles: Path) -> None:
    with pytest.raises(ValueError, match="none of ae, dae has a setting max_epoch: see"):
        comparison_matrix(methods(bundles, "ae", "dae"), settings={"max_epoch": 1, "max_epochs": 1})
    with pytest.raises(ValueError, match="different names, got ae, ae"):
        comparison_matrix(methods(bundles, "ae", "ae"))


@pytest.mark.parametrize(("kept", "missing"), [(0, "anomalous"), (1, "healthy")])
def test_test_images_of_one_class_are_refused_before_anything_is_trained(
    kept: int, missing: str, bundles: Path, tmp_path: Path
) -> None:
    datalist = make_phantom(tmp_path, size=16, num_training=1, num_testing=4)
    sections = json.loads(datalist.read_text())
    sections["testing"] = [item for item in sections["testing"] if item["target"] == kept]
    datalist.write_text(json.dumps(sections))
    with pytest.raises(ValueError, match=f"testing of .* has no image that is {missing} by its target"):
        comparison_matrix(methods(bundles, "ae", "dae"), datalist)


def write_scores(folder: Path, scores: Sequence[float], first: int = 0) -> Path:
    folder.mkdir(parents=True)
    with open(folder / "scores.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient", "target", "score"])
        rows = zip(scores, TARGETS, strict=True)
        writer.writerows(
            [f"{i + first}.png", f"p{(i + first) // 2}", target, score] for i, (score, target) in enumerate(rows)
        )
    return folder


def test_the_best_is_compared_with_each_other_over_the_same_patients(tmp_path: Path) -> None:
    scores = {name: TARGETS + spread * DRAW.random(20) for name, spread in (("worse", 9), ("best", 2), ("near", 2.1))}
    folders = {name: [write_scores(tmp_path / name, values)] for name, values in scores.items()}
    found = compare_with_best(folders, num_draws=200)
    auroc = {name: roc_auc_score(TARGETS, values) for name, values in scores.items()}
    best = max(auroc, key=lambda name: auroc[name])
    assert found["best"] == best and set(found["differences"]) == set(scores) - {best}
    patients = sorted({f"p{i // 2}" for i in range(20)})
    counts = draw_multiplicities(10, 200, torch.Generator().manual_seed(0)).numpy()
    weights = counts[:, [patients.index(f"p{i // 2}") for i in range(20)]]
    for name, difference in found["differences"].items():
        ours, others = ([roc_auc_score(TARGETS, scores[n], sample_weight=w) for w in weights] for n in (best, name))
        draws = np.array(ours) - np.array(others)
        assert difference["value"] == pytest.approx(auroc[best] - auroc[name])
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([difference["low"], difference["high"]], expected, atol=1e-9)
        assert difference["share"] == pytest.approx(np.mean(draws > 1e-12))


def test_other_images_cannot_be_compared(tmp_path: Path) -> None:
    folders = {
        "a": [write_scores(tmp_path / "a", range(20))],
        "b": [write_scores(tmp_path / "b", range(20), first=1)],
    }
    with pytest.raises(ValueError, match="b scored other images"):
        compare_with_best(folders)


@pytest.mark.slow
def test_one_command_makes_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_phantom(tmp_path / "data", size=16, num_training=8, num_validation=4, num_testing=8)
    own = build_bundle("ae", tmp_path).rename(tmp_path / "mine")
    out = tmp_path / "out"
    arguments = ["compare", "aeu", str(own), "--datalist", str(tmp_path / "data" / "datalist.json")]
    arguments += ["--output-dir", str(out), "--max-epochs", "1", "--spatial-size", "[16,16]", "--batch-size=4"]
    arguments += ["--hidden-channels", "4", "--latent-channels", "2"]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("python -m monai.bundle run --config_file") == 4 and not list(out.rglob("model.pt"))
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(f"{out / 'comparison.html'}\n")
    page = (out / "comparison.html").read_text()
    compared = json.loads((out / "comparison.json").read_text())
    assert set(compared["cells"]) == {"aeu", "mine"} and len(compared["differences"]) == 1
    assert page.count('<img src="data:image/') == 6 * 3 and "Best less this one" in page
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    for entries in compared["cells"].values():
        assert f"{entries['image_auroc']['value']:.3f}" in page
    assert "nearest training image" in page and "no learning" in page
    assert (out / "table.md").is_file()


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output-dir", str(tmp_path)]
    for words, message in (
        (["ae", "nothing"], "nothing is neither the folder of a bundle nor one of "),
        (["ae", "dae", "--max-epoch", "1"], "none of ae, dae has a setting max_epoch"),
        (["ae", "--max-epochs"], "settings are given as --NAME VALUE, got --max_epochs"),
        (["ae", "--datalist", str(tmp_path / "none.json"), "--dry-run"], "none.json"),
    ):
        assert main(["compare", *words, *out]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "ae", *out, "stray"])
    assert "bundles come first, got stray" in capsys.readouterr().err
