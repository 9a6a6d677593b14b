# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .audit import AuditError, DatalistAudit
from .convert_csv import convert_csv
from .convert_folder import convert_folder
from .datalist import inference_items, list_images, load_datalist, read_datalist, validate_datalist, write_datalist
from .datalist_shape import datalist_shape
from .dataset import AnomalyDataset, EpochDataset, EpochSampler
from .encoded_dataset import EncodedDataset, encode_dataset
from .healthy_items import healthy_items
from .hold_out import hold_out
from .module_items import ddad_items, pretraining_items
from .phantom import make_phantom
from .pseudo_items import pseudo_labeled_items, read_pseudo_labels
from .sample_data import sample_dir
from .unlabeled_pool import draw_datalist, draw_unlabeled, unlabeled_targets

__all__ = [
    "AnomalyDataset",
    "AuditError",
    "DatalistAudit",
    "EncodedDataset",
    "EpochDataset",
    "EpochSampler",
    "convert_csv",
    "convert_folder",
    "datalist_shape",
    "ddad_items",
    "encode_dataset",
    "draw_datalist",
    "draw_unlabeled",
    "healthy_items",
    "hold_out",
    "inference_items",
    "list_images",
    "load_datalist",
    "make_phantom",
    "pretraining_items",
    "pseudo_labeled_items",
    "read_datalist",
    "read_pseudo_labels",
    "sample_dir",
    "unlabeled_targets",
    "validate_datalist",
    "write_datalist",
]
