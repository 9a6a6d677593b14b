# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
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


@pytest.fixture(autouse=True)
def command_line_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the command line back: ``monai-anomaly train`` and the like leave the one that they hand on to MONAI."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Puts logging back: a bundle's ``logging.conf`` binds the root logger to the standard output of its own test."""
    loggers = [logging.getLogger(name) for name in (None, "ignite")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
        for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
            logger.removeHandler(handler)
