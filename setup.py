# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""A thin shim for tools that still call ``setup.py``; everything is declared in ``pyproject.toml``."""

from __future__ import annotations

from setuptools import setup

setup()
