# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The examples of the guides run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "guide"
GUIDE = GUIDES / "synthetic_anomalies.md"


def blocks(language: str, guide: Path = GUIDE) -> list[str]:
    """The examples in one language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_of_diffusion_runs() -> None:
    (code,) = blocks("python", GUIDES / "diffusion.md")
    names: dict[str, Any] = {}
    exec(compile(code, "diffusion.md", "exec"), names)
    shapes = {name: tuple(value.shape) for name, value in names["result"].items()}
    assert shapes["anomaly_map"] == shapes["reconstruction"] == shapes["spread"] == (4, 1, 32, 32)


def test_the_example_of_two_distributions_runs() -> None:
    (code,) = blocks("python", GUIDES / "dual_distribution.md")
    names: dict[str, Any] = {}
    exec(compile(code, "dual_distribution.md", "exec"), names)
    maps = names["maps"](names["images"]["image"])
    assert maps.shape == (4, 1, 32, 32) and maps.min() >= 0 < maps.max()  # A and B have made a step apart


def test_the_example_of_backbones_runs() -> None:
    (code,) = blocks("python", GUIDES / "backbones.md")
    names: dict[str, Any] = {}
    exec(compile(code, "backbones.md", "exec"), names)
    assert [tuple(features.shape[1:]) for features in names["maps"]] == [(40, 32, 32), (80, 16, 16), (112, 16, 16)]


def test_the_python_examples_run_one_after_the_other() -> None:
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(compile(code, GUIDE.name, "exec"), names)
    assert names["sample"]["label"].shape == names["sample"]["image"].shape
    assert names["result"]["image"].shape == (1, 64, 64) and names["results"]["image"].shape == (4, 1, 64, 64)
    assert [task.task for task in names["training"].tasks] == [0, 1, 2]


def test_the_configuration_makes_a_corruption() -> None:
    (text,) = blocks("json")
    images = [torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in range(3)]
    parser = ConfigParser({**json.loads(text), "items": images, "prepare": None})
    corruption = parser.get_parsed_content("corruption").set_random_state(0)
    result = corruption({"image": images[0]})
    assert result["target"] == 1 and 0 < float(result["label"].max()) <= 1
