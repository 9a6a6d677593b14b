# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

PIXELS = np.random.default_rng(0).integers(0, 4000, (32, 24)).astype(np.uint16)


def save_dicom(path: Path, pixels: bytes = PIXELS.tobytes(), syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Path:
    """Write a gray image of 32 rows and 24 columns, 16 bits, whatever its pixel data and other tags are."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Rows, dataset.Columns = PIXELS.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels
    dataset["PixelData"].is_undefined_length = dataset.file_meta.TransferSyntaxUID.is_compressed
    # the name of this option is another one in pydicom 2
    complete = {"enforce_file_format": True} if pydicom.__version_info__[0] != "2" else {"write_like_original": False}
    dataset.save_as(path, **complete)
    return path
