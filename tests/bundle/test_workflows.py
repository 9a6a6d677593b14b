# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every committed bundle does what its README says: train, evaluate, score new images; and it verifies."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitted_networks import SMALL_FIT, is_fitted, skip_volumes
from monai.bundle import ConfigWorkflow

from monai_anomaly.bundle.build import recipe_names
from monai_anomaly.bundle.verify import verify_bundle
from monai_anomaly.data import make_phantom
from monai_anomaly.transforms import read_map

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
# what makes networks small: each recipe reads those that it has
NARROW: dict[str, Any] = {
    "hidden_channels": 8,
    "latent_channels": 4,
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_steps": 2,
    "hidden_size": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_hidden_size": 24,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
    "variants": 2,
    "pseudo_labels": None,
    **SMALL_FIT,
}
SMALL: dict[str, Any] = {"max_epochs": 2, "batch_size": 8, "val_interval": 1}


def run(name: str, configs: list[str], **overrides: Any) -> None:
    """What ``monai.bundle run`` does."""
    files = [str(BUNDLES / name / "configs" / f"{config}.json") for config in configs]
    kind = "inference" if configs == ["inference"] else "train"
    overrides = {"bundle_root": str(BUNDLES / name), "device": "$torch.device('cpu')"} | overrides
    if json.loads(Path(files[0]).read_text()).get("foreground") == "lungs":  # generated images have none
        overrides["foreground"] = "whole_image"
    workflow = ConfigWorkflow(config_file=files, workflow_type=kind, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def train(name: str, **options: Any) -> None:
    """Train a bundle, of two modules that are compared one network of each."""
    config = json.loads((BUNDLES / name / "configs/train.json").read_text())
    compares = "num_normal" in config or "pseudo_labels" in config
    numbers = config | config["trained"]["defaults"]
    folds = [{"fold": 0}, {"fold": numbers["num_folds"] // 2}] if compares else [{}]
    for fold in folds:
        run(name, ["train"], **options, **fold)


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def phantom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A generated data set, and the size its images are brought to."""
    folder = tmp_path_factory.mktemp(f"phantom{request.param}")
    datalist = make_phantom(folder, spatial_dims=request.param, size=40, seed=1)
    return Path(datalist), [32] * request.param


@pytest.mark.parametrize("name", recipe_names())
def test_train_evaluate_and_score_new_images(name: str, phantom: tuple[Path, list[int]], tmp_path: Path) -> None:
    datalist, size = phantom
    if name == "amae_stage1" and len(size) == 3:
        pytest.skip("anomalies are pasted into 2D images only")
    config = json.loads((BUNDLES / name / "configs/train.json").read_text())
    skip_volumes(config, len(size))
    data = {"dataset_dir": str(datalist.parent), "spatial_size": size, **NARROW}
    if len(size) == 3:
        # one level more, since attention among 16 x 16 x 16 places takes minutes
        data |= {"channels": [8, 8, 8], "attention_levels": [False, False, True]}
    files = {"datalist": str(datalist), "output_dir": str(tmp_path / "run")}
    files["audit#unlabeled"] = "ignored"  # generated volumes are alike, which the audit would take for copies
    train(name, **SMALL, **data, **files)
    models = next((tmp_path / "run").rglob("models"))  # of the run, or of the fold that it trained
    files_left = {"model.pt", "checkpoint.pt"} | (set() if is_fitted(config) else {"model_best.pt"})
    assert files_left <= {path.name for path in models.iterdir()}
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))

    run(name, ["train", "evaluate"], **data, **files, save_maps=True)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro"} == set(
        metrics["metrics"]
    )
    assert metrics["metrics"]["pixel_best_dice"]["oracle"]
    assert {"sharpness", "nearest_training_image", "pca_reconstruction"} <= set(metrics["baselines"])
    report = (tmp_path / "run/report.html").read_text()
    assert "sharpness" in report and metrics["method"] in report
    testing = json.loads(datalist.read_text())["testing"]
    with open(tmp_path / "run/scores.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == [item["image"] for item in testing]
    assert all(math.isfinite(float(row["score"])) for row in rows)
    assert len(list((tmp_path / "run/maps").iterdir())) == len(testing)

    weights = str(models / "model.pt" if models.parent == tmp_path / "run" else tmp_path / "run")
    chosen = {"datalist": str(datalist), "checkpoint": weights, "output_dir": str(tmp_path / "listed")}
    run(name, ["inference"], **data, **chosen)
    with open(tmp_path / "listed/scores.csv", newline="") as stream:
        listed = list(csv.DictReader(stream))
    assert [(row["image"], row["target"]) for row in listed] == [(row["image"], row["target"]) for row in rows]
    run(name, ["inference"], **data, checkpoint=weights, output_dir=str(tmp_path / "new"))
    with open(tmp_path / "new/scores.csv", newline="") as stream:
        scores = {row["image"]: float(row["score"]) for row in csv.DictReader(stream)}
    for row in rows:  # the network of inference.json, alone, gives what the evaluation gave
        np.testing.assert_allclose(scores[row["image"]], float(row["score"]), rtol=1e-3)
    maps = sorted((tmp_path / "new/maps").iterdir())
    assert maps and read_map(maps[0]).shape == (40,) * len(size)
    assert len(list((tmp_path / "new/overlays").iterdir())) == len(maps)


@pytest.mark.parametrize("name", recipe_names())
def test_train_and_evaluate_on_real_images(name: str, tmp_path: Path) -> None:
    settings = {"spatial_size": [32, 32], "output_dir": str(tmp_path), **NARROW}
    train(name, max_epochs=1, seed=5, **settings)
    run(name, ["train", "evaluate"], **settings)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["counts"]["images"] == 120 and 0 <= metrics["metrics"]["image_auroc"]["value"] <= 1
    assert any("sharpness" in warning for warning in metrics["warnings"])
    # what is on record is the training that made the weights, not what this evaluation was started with
    assert metrics["settings"]["training"]["seed"] == 5 and metrics["settings"]["section"] == "testing"


@pytest.mark.parametrize("name", recipe_names())
def test_bundle_verifies(name: str, tmp_path: Path) -> None:
    bundle = shutil.copytree(BUNDLES / name, tmp_path / name)
    config = json.loads((bundle / "configs/inference.json").read_text())
    # the trace of an exported diffusion grows with both, and takes minutes with the defaults
    few = {key: 2 for key in ("num_folds", "num_steps") if key in config}
    (bundle / "configs/inference.json").write_text(json.dumps(config | few))
    results = verify_bundle(bundle)
    assert {"lint", "metadata", "net_in_out", "train", "inference", "export", "load"} <= {r.name for r in results}
    assert all(result.status == "pass" for result in results), "\n".join(
        f"{result.name}: {result.message}" for result in results
    )


def test_shipped_weights_score_the_sample_at_once(tmp_path: Path) -> None:
    run("d2ue_ae", ["train", "evaluate"], checkpoint=str(BUNDLES / "d2ue_ae/models/model.pt"), output_dir=str(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    stated = json.loads((BUNDLES / "d2ue_ae/configs/metadata.json").read_text())["eval_metrics"]
    assert set(stated) == {"image_auroc", "image_ap"}
    for name, value in stated.items():  # within what machines may differ by
        assert metrics[name]["value"] == pytest.approx(value, abs=0.01)


def test_a_second_training_with_other_settings_is_refused(phantom: tuple[Path, list[int]], tmp_path: Path) -> None:
    datalist, size = phantom
    data = {"dataset_dir": str(datalist.parent), "datalist": str(datalist), "spatial_size": size, **NARROW}
    run("ae", ["train"], **SMALL, **data, output_dir=str(tmp_path))
    before = torch.load(tmp_path / "models/model.pt", weights_only=True)
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        run("ae", ["train"], **SMALL, **data, output_dir=str(tmp_path), seed=3)
    assert "seed: 0 -> 3" in str(caught.value.__cause__) and str(tmp_path) in str(caught.value.__cause__)
    after = torch.load(tmp_path / "models/model.pt", weights_only=True)
    assert all(torch.equal(before[key], after[key]) for key in before)
