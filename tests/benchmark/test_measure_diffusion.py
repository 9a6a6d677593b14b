# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_matrix import REPOSITORY
from torch import nn

from monai_anomaly.networks.blocks import NetworkFolds

SETTINGS = {"eta": 1.0, "start": 0, "spacing": "leading", "prediction": "velocity", "background": None, "draws": 0}


def test_a_row_tells_how_many_members_were_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "bench"))
    monkeypatch.delitem(sys.modules, "measure_diffusion", raising=False)
    measure_diffusion = importlib.import_module("measure_diffusion")
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}

    def restorations(*arguments: Any) -> tuple[dict[int, torch.Tensor], float]:
        return {index: torch.zeros(1, 1, 4, 4) for index in arguments[-1]}, 2.0

    monkeypatch.setattr(measure_diffusion, "restorations", restorations)
    monkeypatch.setattr(measure_diffusion, "map_of", lambda member, restored, *_: restored)
    monkeypatch.setattr(measure_diffusion, "evaluate", lambda *_: dict.fromkeys(measure_diffusion.SHOWN, interval))
    folds = NetworkFolds(nn.Identity, num_members=10, seed=0)
    folds.keep([0, 1, 2])
    options = argparse.Namespace(**SETTINGS, steps=[5], members=[2, 10], batch_size=1, residuals=["l1"])
    batch = {"image": torch.zeros(1, 1, 4, 4)}
    rows = list(measure_diffusion.table(SimpleNamespace(network=folds), batch, options))
    assert [row["members"] for row in rows] == [2, 3]
    assert [row["evaluations"] for row in rows] == [10, 15]
    assert [row["seconds an image"] for row in rows] == [4.0, 6.0]
