# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

CHECK = {"_target_": "monai_anomaly.bundle.options.check_options"}


def reason(error: BaseException | None) -> str:
    """Texts of an error and its causes: MONAI wraps ours."""
    return "" if error is None else f"{error}\n{reason(error.__cause__)}"


def begin(folder: Path, component: dict[str, Any]) -> None:
    """Initialize a bundle that has a component, which is never made."""
    config = {"bundle_root": ".", "output_dir": "$@bundle_root + '/runs'", "initialize": [CHECK]}
    path = folder / "bundle/configs/train.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(config | {"train": {"handlers": [component]}, "run": []}))
    ConfigWorkflow(str(path), meta_file={}, logging_file=False, bundle_root=str(folder / "bundle")).initialize()


@pytest.mark.parametrize(
    "component",
    [
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "$@bundle_root + '/..'"},
        {"_target_": "monai.handlers.TensorBoardStatsHandler", "log_dir": "elsewhere"},
        {"_target_": "monai.handlers.CheckpointSaver", "save_dir": "$@output_dir + '/../x'"},
        {"_target_": "monai.handlers.CheckpointSaver", "save_dir": "@output_dir", "final_filename": "../../x.pt"},
        {"_target_": "monai.handlers.CheckpointSaver", "save_dir": "@output_dir", "file_prefix": "$'..' + '/../x'"},
        {"_target_": "monai.handlers.CheckpointSaver", "save_dir": "@output_dir", "final_filename": "x.py"},
        {"_target_": "monai.handlers.MetricsSaver", "save_dir": "/nowhere"},
        {"_target_": "monai.handlers.LogfileHandler", "output_dir": "@output_dir", "filename": "../../x"},
        {"_target_": "monai.transforms.SaveImaged", "keys": "image", "output_dir": "$'.' + './x'"},
        {"_target_": "monai.transforms.SaveImaged", "output_dir": "@output_dir", "output_postfix": "/../../../x"},
        {"_target_": "monai.handlers.CheckpointSaver", "save_dir": "@output_dir", "key_metric_name": "../../x"},
        {"_target_": "ignite.handlers.Checkpoint", "save_handler": "@output_dir", "score_name": "../../x"},
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir", "comment": "/../../x"},
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir", "filename_suffix": "/../../x"},
        {"_target_": "monai.transforms.WriteFileMapping", "mapping_file_path": "../x.json"},
        {"_target_": "monai.data.PersistentDataset", "data": [], "transform": None, "cache_dir": "/nowhere"},
        {"_target_": "ignite.handlers.DiskSaver", "dirname": "/nowhere"},
        {"_target_": "ignite.handlers.Checkpoint", "save_handler": "/nowhere"},
    ],
    ids=lambda component: component["_target_"].split(".")[-1] + " " + str([*component.values()][-1]),
)
def test_writers_of_other_libraries_are_looked_at_before_a_run(component: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        begin(tmp_path, component)
    told = reason(caught.value)
    assert "train::handlers::0::" in told and ("is outside" in told or "would be a program" in told)
    assert {path.name for path in tmp_path.rglob("*")} == {"bundle", "configs", "train.json"}


@pytest.mark.parametrize(
    "component",
    [
        {"_target_": "monai.handlers.CheckpointSaver", "save_dir": "@output_dir", "final_filename": "last.pt"},
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "$@output_dir + '/logs'"},
        {"_target_": "monai.data.PersistentDataset", "data": [], "transform": None, "cache_dir": None},
        {"_target_": "monai.data.ITKReader", "filename": "/anywhere/to/read/from"},
    ],
    ids=lambda component: component["_target_"].split(".")[-1],
)
def test_what_is_inside_and_what_is_read_is_let_be(component: dict[str, Any], tmp_path: Path) -> None:
    begin(tmp_path, component)
