# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from PIL import Image

from ..utils import Keys, atomic_path, check_output
from .loading import EIGHT_BIT
from .readers import RASTER_SUFFIXES, has_suffix
from .saving import in_source_geometry, output_path, source_file, write_nifti
from .scaling import ScaleSourceRange

_MOST_CHANNELS = 4  # of a picture: gray, gray and alpha, RGB, RGB and alpha


class SaveRestorationd(SaveImaged):
    """Writes restored images as files like those of the images they belong to: size, place, channels and intensities.

    The values are put back to the range of the image's file, the inverse of :class:`ScaleSourceRange`, and resized to
    the file's size. An 8-bit picture (PNG, JPEG, BMP, TIFF) becomes an 8-bit PNG of its channels, a 16-bit gray PNG a
    16-bit gray PNG, everything else a float32 NIfTI with the file's affine, where an image of two axes is one slice
    (x, y, 1) and several channels are the fourth axis. File names are those of :class:`SaveImageMapd`; like that, it
    is a ``SaveImaged`` by type.

    Args:
        keys: restorations (C, *S) in [minv, maxv].
        output_dir: folder of the files, made if missing.
        image_key: image (MetaTensor) with the source file's name, size, affine and range in its metadata.
        minv: see :class:`ScaleSourceRange`, which made the images.
        maxv: see :class:`ScaleSourceRange`.
        source_range: see :class:`ScaleSourceRange`.
        allow_missing_keys: leave samples without the key as they are.

    Raises:
        ValueError: when the arguments are not those of a :class:`ScaleSourceRange`, the image carries no file name or
            range, or a restoration holds NaN or infinity.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        image_key: str = Keys.IMAGE,
        minv: float = -1.0,
        maxv: float = 1.0,
        source_range: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir=os.fspath(output_dir), allow_missing_keys=allow_missing_keys)
        self.output_dir = check_output(output_dir)
        self.image_key = image_key
        self.scaler = ScaleSourceRange(minv, maxv, source_range)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the restorations of a sample, which passes unchanged."""
        sample = dict(data)
        image = sample[self.image_key]
        for key in self.key_iterator(sample):
            source = source_file(image, self.image_key)
            values = in_source_geometry(self.scaler.undo(sample[key], image), image, str(key))
            highest = _highest_level(values, image, source)
            if highest:
                _write_picture(output_path(self.output_dir, source, str(key), ".png"), values, highest)
            else:
                write_nifti(output_path(self.output_dir, source, str(key), ".nii.gz"), values, image)
        return sample


def _highest_level(values: np.ndarray, image: MetaTensor, source: str) -> int:
    """Largest value of the picture that can hold what the file holds; 0 when no picture can."""
    if values.ndim != 3 or not has_suffix(source, RASTER_SUFFIXES):  # a TIFF of several pages is a volume
        return 0
    if bool(image.meta.get(EIGHT_BIT, False)):
        return 255 if len(values) <= _MOST_CHANNELS else 0
    # other TIFFs may hold fractions or more than 16 bits; of 16-bit colors, Pillow cannot write any
    return 65535 if len(values) == 1 and has_suffix(source, (".png",)) else 0


def _write_picture(path: Path, values: np.ndarray, highest: int) -> None:
    levels = np.clip(np.rint(values), 0, highest).astype(np.uint8 if highest == 255 else np.uint16)
    rows = np.moveaxis(levels, 0, -1).swapaxes(0, 1)  # a picture's rows are y
    with atomic_path(path) as temporary:
        Image.fromarray(rows[..., 0] if rows.shape[-1] == 1 else rows).save(temporary, format="PNG")


SaveRestorationD = SaveRestorationDict = SaveRestorationd
