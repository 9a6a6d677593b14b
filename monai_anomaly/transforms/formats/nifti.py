# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
from typing import Any

import nibabel
import numpy as np

from .limits import UnusableImageError, check_length, check_size

# smallest volume of a voxel over that of a box with the same edges: below, an axis lies in the plane of the others
_FLAT = 1e-6


def check_nifti(path: str) -> None:
    """Refuse a NIfTI file of a kind that would be read as something else: complex, colors, five axes, no place."""
    image: Any = nibabel.load(path)
    kind = image.header.get_data_dtype()
    if kind.kind == "c":
        raise UnusableImageError(
            f"image {path} holds complex values ({kind}), of which the imaginary part would be lost: save "
            "the magnitude, or real and imaginary part as two channels"
        )
    if kind.names is not None:
        raise UnusableImageError(f"image {path} holds color voxels {kind.names}: save the colors as a fourth axis")
    if not 2 <= len(image.shape) <= 4:
        raise UnusableImageError(
            f"image {path} has {len(image.shape)} axes {tuple(image.shape)}: two or three of space and one of channels "
            "are allowed; save its parts as separate images"
        )
    size = math.prod(image.shape) * kind.itemsize
    check_size(path, size)
    _check_offset(path, image)
    if not path.lower().endswith(".gz"):
        check_length(path, os.path.getsize(path) - int(image.dataobj.offset), size)
    _check_place(path, image.affine)
    if int(image.header["sform_code"]) == 0:  # the place is made of the voxel sizes
        _check_voxel_sizes(path, image)


def _check_offset(path: str, image: Any) -> None:
    """Refuse a single file whose pixels begin within its header, as Nibabel would read them."""
    # a pair of files has its pixels in the second, from its first byte
    first, offset = getattr(image.header, "single_vox_offset", 0), int(image.dataobj.offset)
    if "header" not in image.file_map and offset < first:
        raise UnusableImageError(
            f"image {path} says that its pixels begin at byte {offset}, within its header of {first} bytes: write a "
            "right vox_offset"
        )


def _check_place(path: str, affine: np.ndarray) -> None:
    axes = affine[:3, :3]
    edges = np.linalg.norm(axes, axis=0).prod()
    if not np.isfinite(affine).all() or not edges > 0 or abs(np.linalg.det(axes)) < _FLAT * edges:
        raise UnusableImageError(
            f"image {path} has no place in space, since its sform, qform or voxel sizes are zero, singular or infinite "
            f"({np.array2string(affine, separator=' ').replace(chr(10), '')}): write a right one into its header"
        )


def _check_voxel_sizes(path: str, image: Any) -> None:
    """Refuse voxel sizes of zero along an axis with several voxels; Nibabel puts 1 for them."""
    with nibabel.openers.ImageOpener(path) as stream:
        header = type(image.header).from_fileobj(stream, check=False)
    sizes = [float(size) for size in header["pixdim"][1:4]]
    along = range(min(len(image.shape), 3))
    if any(image.shape[axis] > 1 and not abs(sizes[axis]) > 0 for axis in along):
        raise UnusableImageError(f"image {path} has voxel sizes {sizes}: write the right ones into its header")
