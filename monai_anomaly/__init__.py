# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly detection in medical images for MONAI."""

from __future__ import annotations

__version__ = "0.1.0"
