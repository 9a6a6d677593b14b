# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every step of AMAE, DDAD and the diffusion methods is killed within, and goes on there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from killed_pipeline import Death, Run, read_results, run_all

from monai_anomaly.data.phantom import make_phantom

pytestmark = pytest.mark.slow
SHORT: dict[str, Any] = {"batch_size": 4, "val_interval": 1, "checkpoint_seconds": 0, "device": torch.device("cpu")}
EVALUATION = {"num_reference": 2, "validate#key_metric#image_auroc#num_draws": 2}


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Whether two nested states are the same, tensors bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, value in enumerate(one):
            assert_same(value, other[i], f"{place}/{i}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, place


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name a generated data set, and let its unlabeled images be like the others."""
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, size=16, num_training=10, num_unlabeled=8, num_validation=4, num_testing=6)
    return {"dataset_dir": str(folder), "spatial_size": [16, 16], **SHORT}


def amae(folder: Path, data: dict[str, Any]) -> list[Run]:
    """Pre-training, stage 1 and pseudo-labels as steps of the pipeline, then both modules and the evaluation."""
    widths = ("hidden_size", "decoder_hidden_size")
    tiny = {"patch_size": 4, "num_layers": 1, "num_heads": 2, "decoder_num_layers": 1, "decoder_num_heads": 2}
    options = {**data, **tiny, **dict.fromkeys(widths, 8), "output_dir": str(folder), "max_epochs": 3, "held_out": 0.2}
    options["start_weights"] = str(folder / "pretraining/mae/models/model.pt")
    before = ["$@before#pretraining.run()", "$@before#stage1.run()"]
    steps = {"epochs_of_pretraining": 4, "epochs_of_stage1": 4, "foreground": "whole_image", "variants": 1}
    labels = {"pseudo_labels": str(folder / "stage1/pseudo_labels/pseudo_labels.json")}
    pipeline = ["train", "evaluate", "all_folds", "pipeline"]
    return [
        Run("amae", pipeline, {**options, **steps, "pseudo_label_mode": "global", "run": before}),
        *(Run("amae", ["train"], {**options, **labels, "fold": fold}) for fold in (0, 1)),
        Run("amae", ["train", "evaluate"], {**options, **EVALUATION}),
    ]


def ddad(folder: Path, data: dict[str, Any]) -> list[Run]:
    """A network of each module, the refinement as a step of the pipeline, and the evaluation."""
    tiny = {"num_folds": 3, "num_normal": 2, "hidden_channels": 4, "latent_channels": 2, "refiner_channels": 2}
    options = {**data, **tiny, "output_dir": str(folder), "max_epochs": 3}
    pipeline = ["train", "evaluate", "all_folds", "pipeline"]
    return [
        *(Run("ddad", ["train"], {**options, "fold": fold}) for fold in range(3)),
        Run("ddad", pipeline, {**options, "epochs_of_refinement": 3, "run": ["$@refinement.run()"]}),
        Run("ddad", ["train", "evaluate"], {**options, **EVALUATION, "score": "refined_dual"}),
    ]


def diffusion(folder: Path, data: dict[str, Any]) -> list[Run]:
    """One member, its evaluation, and the network that learns from it."""
    tiny = {"channels": [4, 8], "attention_levels": [False, False], "num_head_channels": 4, "norm_num_groups": 2}
    options = {**data, **tiny, "output_dir": str(folder), "max_epochs": 3, "held_out": 0.2, "num_steps": 2}
    options |= {"other_dir": data["dataset_dir"]}
    return [
        Run("diffusion_restoration", ["train"], options),
        Run("diffusion_restoration", ["train", "evaluate"], {**options, **EVALUATION}),
        Run("diffusion_restoration", ["train", "distill"], {**options, "variants": 1}),
    ]


CHAINS = {
    # four epochs of one step in the pre-training and in stage 1, three of three in module A, and of one in module B
    "amae": (
        amae,
        [
            (Death("iteration", 3), "pre-training"),
            (Death("mae/models/model.pt"), "its weights"),
            (Death("pretraining/job.json"), "its end"),
            (Death("iteration", 3), "stage 1"),
            (Death("stage1/evaluation/metrics.json"), "evaluation of stage 1"),
            (Death("pseudo_labels.json"), "pseudo-labels"),
            (Death("stage1/job.json"), "end of the pseudo-labels"),
            (Death("iteration", 3), "module A"),
            (Death("fold_1/models/checkpoint.pt", 2), "module B"),
            (Death("scores.csv"), "evaluation"),
        ],
    ),
    "ddad": (
        ddad,
        [
            (Death("iteration", 4), "normal module"),
            (Death("fold_2/models/checkpoint.pt", 2), "module of both"),
            (Death("iteration", 5), "refinement"),
            (Death("refiner/models/model.pt"), "weights of the refinement"),
            (Death("metrics.json"), "evaluation"),
        ],
    ),
    "diffusion": (
        diffusion,
        [
            (Death("iteration", 3), "member"),
            (Death("/restorations/", 2), "sampling of the test images"),
            (Death("distilled/restorations/", 3), "sampling of the training images"),
            (Death("iteration", 3), "distillation"),
        ],
    ),
}


@pytest.mark.parametrize("name", list(CHAINS))
def test_a_method_that_is_killed_within_every_step_ends_where_an_unbroken_one_does(
    name: str, data: dict[str, Any], tmp_path: Path
) -> None:
    make, deaths = CHAINS[name]
    records = {folder: tmp_path / f"{folder}.txt" for folder in ("whole", "broken")}
    assert run_all(make(tmp_path / "whole/run", data), records["whole"]) == 0
    runs = make(tmp_path / "broken/run", data)
    for death, step in deaths:
        assert run_all(runs, records["broken"], death) == -9, f"not killed in {step}"
    assert run_all(runs, records["broken"]) == 0
    whole, broken = (len(record.read_bytes()) for record in records.values())
    assert broken <= whole + 3 * len(deaths), "of what was trained, one epoch at most is trained again"
    expected, found = (read_results(tmp_path / folder / "run") for folder in ("whole", "broken"))
    assert expected.keys() == found.keys() and len(expected) > 6
    for path, value in expected.items():
        assert_same(found[path], value, path)
