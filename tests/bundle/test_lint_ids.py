# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_bundle import EVALUATE, INFERENCE, MULTI_GPU, TRAIN, fired, put, remove

from monai_anomaly.bundle.finding import ERROR


@pytest.mark.parametrize(
    "identifier", ["bundle_root", "device", "dataset_dir", "train/trainer/max_epochs", "train/inferer"]
)
def test_a_missing_train_property_is_found(bundle: Path, identifier: str) -> None:
    remove(bundle, TRAIN, identifier)
    assert ("property", TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize("identifier", ["dataset", "evaluator", "network_def", "inferer"])
def test_a_missing_inference_property_is_found(bundle: Path, identifier: str) -> None:
    remove(bundle, INFERENCE, identifier)
    assert ("property", INFERENCE) in fired(bundle, ERROR)


def test_a_property_under_another_id_is_found(bundle: Path) -> None:
    put(bundle, TRAIN, "my_handlers", [])
    put(bundle, TRAIN, "train/trainer/train_handlers", "@my_handlers")
    assert ("property", TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize(
    ("file", "identifier"),
    [
        (TRAIN, "val_interval"),
        (TRAIN, "run"),
        (TRAIN, "train/dataset/data"),
        (TRAIN, "validate/handlers"),
        (INFERENCE, "postprocessing"),
        (INFERENCE, "network"),
        (EVALUATE, "run"),
        (MULTI_GPU, "device"),
    ],
)
def test_ids_that_other_programs_read_must_be_there(bundle: Path, file: str, identifier: str) -> None:
    remove(bundle, file, identifier)
    assert ("app-id", file) in fired(bundle, ERROR)


def test_an_overlay_must_replace_something(bundle: Path) -> None:
    put(bundle, EVALUATE, "validate#nothing#here", 1)
    assert ("overlay", EVALUATE) in fired(bundle, ERROR)


def test_an_overlay_is_laid_over_train_as_monai_does(bundle: Path) -> None:
    from monai.bundle import ConfigParser

    from monai_anomaly.bundle.config_tree import overlay

    put(bundle, EVALUATE, "validate#dataset#data", [])
    put(bundle, EVALUATE, "+train", {"extra": 1})
    put(bundle, EVALUATE, "+imports", ["$import glob"])
    put(bundle, EVALUATE, "train#handlers#0#save_dir", "x")
    files = [bundle / TRAIN, bundle / EVALUATE]
    merged, homeless = overlay(*(json.loads(path.read_text()) for path in files))
    assert homeless == []
    assert merged == ConfigParser.load_config_files([str(path) for path in files])


def test_the_checkpoint_must_hold_the_model(bundle: Path) -> None:
    put(
        bundle,
        TRAIN,
        "train/handlers",
        [{"_target_": "monai.handlers.CheckpointSaver", "save_dict": {"net": "@network"}}],
    )
    assert ("checkpoint", TRAIN) in fired(bundle, ERROR)
