# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_bundle import EVALUATE, INFERENCE, MULTI_GPU, TRAIN, fired, put, remove

from monai_anomaly.bundle.lint import lint_bundle
from monai_anomaly.bundle.lint.finding import ERROR
from monai_anomaly.bundle.lint.ids import bases_of


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

    from monai_anomaly.bundle.lint.config_tree import overlay

    put(bundle, EVALUATE, "validate#dataset#data", [])
    put(bundle, EVALUATE, "+train", {"extra": 1})
    put(bundle, EVALUATE, "+imports", ["$import glob"])
    put(bundle, EVALUATE, "train#handlers#0#save_dir", "x")
    files = [bundle / TRAIN, bundle / EVALUATE]
    merged, homeless = overlay(*(json.loads(path.read_text()) for path in files))
    assert homeless == []
    assert merged == ConfigParser.load_config_files([str(path) for path in files])


def overlay_of(bundle: Path, content: dict[str, Any], name: str = "more") -> str:
    """Put a further config into a bundle."""
    file = f"configs/{name}.json"
    (bundle / file).write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1, "b": "@a"},
        {"in_channels": 3, "c": "$@in_channels + 1"},  # over both
        {"val_interval": 5, "train#trainer#max_epochs": "@val_interval"},  # over train.json alone
        {"evaluator#inferer": {"_target_": "monai.inferers.SlidingWindowInferer", "roi_size": 8}, "x": "@evaluator"},
        {"postprocessing": "$os.path.join('a', 'b')"},  # the imports of the config below it
    ],
)
def test_an_overlay_of_any_name_is_laid_over_what_it_fits(bundle: Path, content: dict[str, Any]) -> None:
    overlay_of(bundle, content)
    assert lint_bundle(bundle) == []


def test_what_an_overlay_of_any_name_is_laid_over(bundle: Path) -> None:
    configs = {file: json.loads((bundle / file).read_text()) for file in (TRAIN, INFERENCE, EVALUATE)}
    for content, bases in (
        ({"in_channels": 3}, [(TRAIN,), (INFERENCE,)]),
        ({"train#inferer": 3}, [(TRAIN,)]),
        ({"evaluator#inferer": 3}, [(INFERENCE,)]),
        ({"nothing#here": 3}, [(TRAIN,)]),
        ({"bundle_root": "."}, [()]),
    ):
        assert bases_of("x", {**configs, "x": content}) == bases
    assert bases_of("x", {"x": {"a": 1}}) == [()]
    assert bases_of(EVALUATE, configs) == [(TRAIN,)] and bases_of(INFERENCE, configs) == [()]


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("overlay", {"nothing#here": 1}),
        ("overlay", {"train#inferer": 1, "evaluator#inferer": 1}),  # over neither of the two
        ("reference", {"in_channels": "@nothing"}),
        ("reference", {"in_channels": "@train"}),  # fits both by its ids, and breaks inference.json
        ("expression", {"evaluator#inferer": "$eval(1)"}),
        ("expression", {"bundle_root": ".", "x": "$os.path.join('a')"}),  # complete by itself: without imports
    ],
)
def test_faults_of_an_overlay_of_any_name_are_found(bundle: Path, rule: str, content: dict[str, Any]) -> None:
    file = overlay_of(bundle, content)
    assert fired(bundle, ERROR) == {(rule, file)}


def test_the_checkpoint_must_hold_the_model(bundle: Path) -> None:
    put(
        bundle,
        TRAIN,
        "train/handlers",
        [{"_target_": "monai.handlers.CheckpointSaver", "save_dict": {"net": "@network"}}],
    )
    assert ("checkpoint", TRAIN) in fired(bundle, ERROR)
