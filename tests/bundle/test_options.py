# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_anomaly.bundle.options import check_options, find_weights


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"max_epochs": 3, "train": {}, "validate#dataset#data#section": "testing"}))
    return str(path)


@pytest.mark.parametrize(
    "options",
    [
        ["--max_epochs", "3"],
        ["--max_epochs=3"],
        ["--train#trainer#max_epochs", "3", "--validate::dataset", "1"],
        ["--meta_file", "x", "--logging_file", "y"],
    ],
)
def test_known_options_pass(config: str, options: list[str]) -> None:
    check_options(["run", "--config_file", config, *options])
    check_options(["run", *options, f"--config_file=['{config}']"])


@pytest.mark.parametrize(("option", "message"), [("--max_epoch", "mean --max_epochs?"), ("--zzzz=1", "known are")])
def test_unknown_options_are_refused(config: str, option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        check_options(["run", "--config_file", f"['{config}']", option, "3"])


def test_other_commands_are_left_alone() -> None:
    check_options(["ckpt_export", "--anything", "1"])
    check_options([])
    check_options(["run", "--args_file", "args.json", "--whatever", "1"])


def test_missing_weights_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train first with the same --output_dir"):
        find_weights(tmp_path / "model.pt")
    (tmp_path / "model.pt").touch()
    assert find_weights(tmp_path / "model.pt") == str(tmp_path / "model.pt")
