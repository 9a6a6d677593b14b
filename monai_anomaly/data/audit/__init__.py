# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .datalist_audit import AuditError, DatalistAudit

__all__ = ["AuditError", "DatalistAudit"]
