# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Operators of MONAI Deploy that it lacks: image files in, and float maps out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.deploy.core import Fragment, Image, Operator, OperatorSpec

from monai_anomaly.transforms import LoadImageChecked
from monai_anomaly.utils import atomic_path

_NO_CHANNEL = "no_channel"


class ImageFileLoaderOperator(Operator):
    """Reads an image file (PNG, JPEG, TIFF, NIfTI, ...) with its values, its channels and its place.

    The SDK's own NIfTI loader gives an array without its place.

    Named output:
        image: Image, axes (x, y[, z]) and, for several channels, (x, y[, z], C).

    Args:
        fragment: the application.
        input_path: the file.
        args: as for every operator.
        kwargs: as for every operator.
    """

    def __init__(self, fragment: Fragment, *args: Any, input_path: Path, **kwargs: Any) -> None:
        self.input_path = input_path
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.output("image")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Read the file."""
        loaded = LoadImageChecked()(self.input_path)
        values = loaded.numpy()
        if loaded.meta["eight_bit"]:
            values = values.astype(np.uint8)  # black and white are then those of the type, as for the bundle's loader
        affine = np.asarray(loaded.affine)
        several = len(values) > 1
        metadata = {
            "affine": affine,
            "original_affine": affine,
            "spacing": np.linalg.norm(affine[:3, :3], axis=0),
            "original_channel_dim": -1 if several else _NO_CHANNEL,
            "filename_or_obj": str(self.input_path),
        }
        op_output.emit(Image(np.moveaxis(values, 0, -1) if several else values[0], metadata), "image")


class AnomalyMapWriterOperator(Operator):
    """Writes the map of a bundle as NIfTI, float32, in the place of its image.

    Named inputs:
        image: Image that went into the bundle: of a file (x, y[, z]), or of DICOM (z, y, x).
        pred: the map, an array of the image's axes (x, y[, z]), as ``MonaiBundleInferenceOperator`` emits it.

    Args:
        fragment: the application.
        output_path: file to write, ``.nii`` or ``.nii.gz``.
        args: as for every operator.
        kwargs: as for every operator.
    """

    def __init__(self, fragment: Fragment, *args: Any, output_path: Path, **kwargs: Any) -> None:
        self.output_path = output_path
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.input("image")
        spec.input("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write the map."""
        image, values = op_input.receive("image"), np.asarray(op_input.receive("pred"))
        if not np.issubdtype(values.dtype, np.floating):
            raise TypeError(f"the map is {values.dtype}, not float: do not call the bundle's output 'image'")
        if values.ndim not in (2, 3) or not np.isfinite(values).all():
            raise ValueError(f"the map must be finite and of two or three axes, got shape {values.shape}")
        affine = _affine(image.metadata() or {})
        volume = values.astype(np.float32)[..., None] if values.ndim == 2 else values.astype(np.float32)
        with atomic_path(self.output_path) as temporary:
            nib.save(nib.Nifti1Image(volume, affine), temporary)


def _affine(metadata: dict[str, Any]) -> np.ndarray:
    """Affine of the voxels (x, y, z) in NIfTI's axes: DICOM's operator names it so, a single radiograph has none."""
    for key in ("nifti_affine_transform", "affine"):
        if metadata.get(key) is not None:
            return np.asarray(metadata[key], dtype=float)
    return np.eye(4)
