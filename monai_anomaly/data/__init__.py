# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .audit import AuditError, DatalistAudit
from .convert_csv import convert_csv
from .convert_folder import convert_folder
from .datalist import inference_items, list_images, load_datalist, read_datalist, validate_datalist, write_datalist
from .dataset import AnomalyDataset, EpochSampler
from .hold_out import hold_out
from .phantom import make_phantom
from .sample_data import sample_dir

__all__ = [
    "AnomalyDataset",
    "AuditError",
    "DatalistAudit",
    "EpochSampler",
    "convert_csv",
    "convert_folder",
    "hold_out",
    "inference_items",
    "list_images",
    "load_datalist",
    "make_phantom",
    "read_datalist",
    "sample_dir",
    "validate_datalist",
    "write_datalist",
]
