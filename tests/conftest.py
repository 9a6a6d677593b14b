# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images that do not ship with the package; the test skips where it is absent."""
    folder = Path(os.environ.get("MONAI_ANOMALY_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"real data not found at {folder}: set MONAI_ANOMALY_DATA to the folder that holds cxr, brain, fundus"
        )
    return folder
