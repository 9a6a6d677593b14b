# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from monai_anomaly.bundle.options import check_options, find_weights


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps(
            {
                "max_epochs": 3,
                "spatial_size": [64, 64],
                "train": {},
                "validate#dataset#data#section": "testing",
                "limit": None,
            }
        )
    )
    return str(path)


@pytest.mark.parametrize(
    "options",
    [
        ["--max_epochs", "3"],
        ["--max_epochs=3"],
        ["--train#trainer#max_epochs", "3", "--validate::dataset", "1"],
        ["--meta_file", "x", "--logging_file", "y"],
        ["--limit", "None", "--meta_file", "None", "--max_epochs", "$None"],
        ["--+train", "{'a': 1}"],
        ["--spatial_size", "[32, 32]"],
        ["--spatial_size", "$[@max_epochs] * 2"],
    ],
)
def test_known_options_pass(config: str, options: list[str]) -> None:
    check_options(["run", "--config_file", config, *options])
    check_options(["run", *options, f"--config_file=['{config}']"])


@pytest.mark.parametrize(("option", "message"), [("--max_epoch", "mean --max_epochs?"), ("--zzzz=1", "known are")])
def test_unknown_options_are_refused(config: str, option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        check_options(["run", "--config_file", f"['{config}']", option, "3"])


@pytest.mark.parametrize("name", ["max_epochs", "+train", "train#trainer", "validate#dataset#data#section"])
def test_none_that_would_be_ignored_is_refused(config: str, name: str) -> None:
    for options in (["--" + name, "None"], [f"--{name}=None"]):
        with pytest.raises(ValueError, match=re.escape(f"MONAI ignores --{name} None: write --{name} '$None'.")):
            check_options(["run", "--config_file", config, *options])


@pytest.mark.parametrize("size", ["64", "[64]", "[64,'a']", "sixty", "[1,2,3,4]", "[True,64]", "[0,64]"])
def test_a_size_that_is_no_list_is_refused(config: str, size: str) -> None:
    with pytest.raises(ValueError, match=r'such as "\[64,64\]", got'):
        check_options(["run", "--config_file", config, "--spatial_size", size])


def test_settings_of_the_training_are_named_as_such(config: str) -> None:
    inference = Path(config).with_name("inference.json")
    inference.write_text(json.dumps({"checkpoint": "x", "network": {}}))
    with pytest.raises(ValueError, match="--max_epochs: it is a setting of train.json, which is not used here"):
        check_options(["run", "--config_file", str(inference), "--max_epochs", "3"])
    with pytest.raises(ValueError, match=r"known are checkpoint\.$"):
        check_options(["run", "--config_file", str(inference), "--zzzz", "3"])


def test_other_commands_are_left_alone() -> None:
    check_options(["ckpt_export", "--anything", "1"])
    check_options([])
    check_options(["run", "--args_file", "args.json", "--whatever", "1"])


def test_missing_weights_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train first, then give --checkpoint OUTPUT_DIR"):
        find_weights(tmp_path / "model.pt")
    (tmp_path / "model.pt").touch()
    assert find_weights(tmp_path / "model.pt") == str(tmp_path / "model.pt")
