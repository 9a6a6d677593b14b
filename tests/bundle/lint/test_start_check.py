# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest

from monai_anomaly.bundle.lint.start_check import CHECK, lint_start

WRITER = {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir"}


@pytest.mark.parametrize("start", [["@check"], ["@check", "$1"], [CHECK], ["@a#b"]], ids=str)
def test_the_check_comes_first(start: list[Any]) -> None:
    config = {"initialize": start, "check": CHECK, "a": {"b": CHECK}, "x": [{"y": WRITER}]}
    assert not list(lint_start("train.json", config))


@pytest.mark.parametrize("start", [None, [], "@check", ["$1", "@check"], ["@other"], ["$@check"], ["@"]], ids=str)
def test_it_is_asked_for_where_another_library_writes(start: Any) -> None:
    config = {"initialize": start, "check": CHECK, "other": {**CHECK, "_mode_": "callable"}, "x": [{"y": WRITER}]}
    (finding,) = lint_start("train.json", config)
    assert (finding.rule, finding.file, finding.path) == ("start", "train.json", "initialize")


@pytest.mark.parametrize(
    "value",
    [
        {"_target_": "monai_anomaly.handlers.ScoresWriter", "output_dir": "@output_dir"},
        {"_target_": "monai.data.PersistentDataset", "cache_dir": None},
        {"output_dir": "runs"},
    ],
)
def test_it_is_not_asked_for_where_none_does(value: dict[str, Any]) -> None:
    assert not list(lint_start("train.json", {"x": value}))
