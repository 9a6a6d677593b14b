# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_bundle import WEIGHTS, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle without any fault, its weights included."""
    root = write_bundle(tmp_path)
    torch.save({"weight": torch.zeros(2), "epoch": 3}, root / WEIGHTS)
    return root
