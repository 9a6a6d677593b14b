# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from small_bundle import EVALUATE, INFERENCE, META, NETWORK, TRAIN, fired, put

from monai_anomaly.bundle.lint import lint_bundle
from monai_anomaly.bundle.lint.finding import ERROR

VALUES = {
    "expression": [
        "$__import__('os').system('x')",
        "$().__class__.__bases__",
        "$torch.hub.load('a', 'b')",
        "$lambda: 1",
    ],
    "import": ["$import os; os.system('x')", "$import subprocess", "$from os import system"],
    "macro": ["%../../etc/passwd.json", "%/etc/x.json#a", "%configs/../../x.json", "%docs/x.json", "%configs/x.yaml"],
    "path": ["/home/someone/data", "/Users/someone", "C:\\data\\x", "~/data", "/mnt/data", "$'/home/someone/' + 'x'"],
    "download": ["https://example.org/x.pt", "s3://bucket/x", "$'https://example.org'"],
    "reference": ["@no_such_id", "$@train#no_such.run()", "@::::::::::x", "%no_such_id", "@train#handlers#7"],
}
HONEST_VALUES = [
    "$@bundle_root + '/models/model.pt'",
    "%network_def",
    "%train#handlers",
    "%configs/inference.json#network_def",
    "@train#handlers#0",
    "@::in_channels",
    "data/images",
    "/workspace/data/x",
    "50 %",
    "a@b.org",
]


@pytest.mark.parametrize(("rule", "value"), [(rule, value) for rule, values in VALUES.items() for value in values])
def test_hostile_or_broken_values_are_found(bundle: Path, rule: str, value: str) -> None:
    put(bundle, TRAIN, "extra", value)
    assert (rule, TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize("value", HONEST_VALUES)
def test_honest_values_are_not_reported(bundle: Path, value: str) -> None:
    put(bundle, TRAIN, "extra", value)
    assert lint_bundle(bundle) == []


def test_a_macro_to_a_missing_file_is_found(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "%configs/more.json#a")
    assert ("macro", TRAIN) in fired(bundle, ERROR)
    (bundle / "configs" / "more.json").write_text('{"a": 1}')
    assert lint_bundle(bundle) == []


def test_files_that_macros_can_reach_are_linted(bundle: Path) -> None:
    (bundle / "configs" / "more").mkdir()
    (bundle / "configs" / "more" / "deep.JSON").write_text('{"a": "$eval(1)"}')
    assert ("expression", "configs/more/deep.JSON") in fired(bundle, ERROR)


def test_an_import_outside_its_list_is_found(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "$import os")
    assert ("import", TRAIN) in fired(bundle, ERROR)


def test_an_overlay_sees_the_imports_of_its_base(bundle: Path) -> None:
    put(bundle, EVALUATE, "checkpoint", "$os.path.join(@output_dir, 'model.pt')")
    assert lint_bundle(bundle) == []
    put(bundle, TRAIN, "imports", ["$import ignite.distributed as idist"])
    assert ("expression", EVALUATE) in fired(bundle, ERROR)


def test_a_key_that_becomes_code_is_found(bundle: Path) -> None:
    """MONAI pastes parent keys into relative references: this one calls ``system`` when its value is resolved."""
    from monai.bundle import ConfigParser

    key = "y][__import__('os').getpid()"
    resolved = ConfigParser.resolve_relative_ids(f"x::{key}::v", "$[@::w]")
    assert "__import__('os').getpid()" in resolved
    put(bundle, TRAIN, "x", {key: {"w": 1, "v": "$[@::w]"}})
    assert ("key", TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize("key", ["pretrained", "download", "adapt_standard_resnet"])
def test_fetching_arguments_are_found(bundle: Path, key: str) -> None:
    put(bundle, INFERENCE, "network_def", {**NETWORK, key: False})
    assert lint_bundle(bundle) == []
    put(bundle, INFERENCE, "network_def", {**NETWORK, key: True})
    assert ("download", INFERENCE) in fired(bundle, ERROR)


@pytest.mark.parametrize(("key", "bad", "good"), [("allow_pickle", True, False), ("weights_only", False, True)])
def test_unpickling_arguments_are_found(bundle: Path, key: str, bad: bool, good: bool) -> None:
    put(bundle, INFERENCE, "extra", {key: good})
    assert lint_bundle(bundle) == []
    put(bundle, INFERENCE, "extra", {key: bad})
    assert ("pickle", INFERENCE) in fired(bundle, ERROR)


def test_a_text_that_looks_like_a_reference_is_a_warning(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "@output_dir/maps")
    assert fired(bundle) == {("reference-text", TRAIN)}


@pytest.mark.parametrize("value", ["$__import__('os').system('x')", "@train", "%/etc/x.json"])
def test_metadata_must_be_inert(bundle: Path, value: str) -> None:
    put(bundle, META, "description", value)
    assert ("live-data", META) in fired(bundle, ERROR)


def test_metadata_must_not_be_instantiated(bundle: Path) -> None:
    put(bundle, META, "eval_metrics", {"_target_": "os.getcwd"})
    assert ("live-data", META) in fired(bundle, ERROR)


def test_json_elsewhere_must_be_plain_data(bundle: Path) -> None:
    (bundle / "docs" / "datalist.json").write_text('[{"image": "a.png"}]')
    assert lint_bundle(bundle) == []
    (bundle / "docs" / "datalist.json").write_text('{"run": "$eval(1)"}')
    assert fired(bundle, ERROR) == {("live-data", "docs/datalist.json")}
