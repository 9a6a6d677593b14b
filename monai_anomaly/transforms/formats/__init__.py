# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .check import check_image_file, companion_files
from .limits import UnusableImageError, max_image_bytes

__all__ = ["UnusableImageError", "check_image_file", "companion_files", "max_image_bytes"]
