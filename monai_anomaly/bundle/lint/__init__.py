# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .finding import ERROR, WARNING, Finding, printable
from .lint_bundle import has_errors, lint_bundle

__all__ = ["ERROR", "WARNING", "Finding", "has_errors", "lint_bundle", "printable"]
