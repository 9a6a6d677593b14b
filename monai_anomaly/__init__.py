# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly detection in medical images for MONAI."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_FOLDERS = (
    "benchmark",
    "bundle",
    "cli",
    "data",
    "engines",
    "functional",
    "handlers",
    "inferers",
    "losses",
    "metrics",
    "networks",
    "transforms",
    "utils",
    "visualize",
)


def __getattr__(name: str) -> ModuleType:
    """Import a folder when it is first asked for, so that ``monai_anomaly.transforms`` needs no import of its own."""
    if name in _FOLDERS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
