# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

from .dicom import check_dicom, check_series
from .headers import check_meta_image, check_nrrd, detached_file
from .nifti import check_nifti

_META = (".mha", ".mhd")
_NRRD = (".nrrd", ".nhdr")
_NIFTI = (".nii", ".nii.gz")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def check_image_file(path: str) -> None:
    """Refuse a file that its reader would take without a word though it must not: too short, too large, ambiguous.

    Everything that is no picture, NIfTI, MetaImage or NRRD file by its suffix must be DICOM.

    Args:
        path: an ordinary file, or a folder with one DICOM series.

    Raises:
        UnusableImageError: naming file and remedy.
        Exception: of the library that reads the header, where the file is damaged.
    """
    name = path.lower()
    if os.path.isdir(path):
        check_series(path)
    elif name.endswith(_NIFTI):
        check_nifti(path)
    elif name.endswith(_META):
        check_meta_image(path)
    elif name.endswith(_NRRD):
        check_nrrd(path)
    elif not name.endswith(_PICTURES):
        check_dicom(path)


def companion_files(path: str) -> list[str]:
    """Return the other files that an image is read from: a header's file of pixels, the files of a series' folder."""
    try:
        if os.path.isdir(path):
            return sorted(entry.path for entry in os.scandir(path) if entry.is_file())
        detached = detached_file(path) if path.lower().endswith(_META + _NRRD) else None
    except (OSError, ValueError):  # whoever reads the image says what is wrong with it
        return []
    return [] if detached is None else [detached]
