# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader, ITKReader, NibabelReader, PILReader
from monai.transforms import LoadImage
from monai.utils import optional_import
from PIL import Image, UnidentifiedImageError

from .formats.limits import check_size

itk, _ = optional_import("itk")

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = RASTER_SUFFIXES + NIFTI_SUFFIXES + DICOM_SUFFIXES + (".mha", ".mhd", ".nrrd")

_DICOM_MAGIC_AT = 128
_TIFF_BITS, _TIFF_SAMPLES = 258, 277
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_COLOR_TYPES_WITH_CHANNELS = (2, 4, 6)  # RGB, grey + alpha, RGB + alpha


def has_suffix(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> bool:
    """Return whether the file name ends in one of ``suffixes``, whatever its case."""
    return os.fspath(path).lower().endswith(suffixes)


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a file this package reads: a known suffix, or none and the DICOM marker inside."""
    if has_suffix(path, IMAGE_SUFFIXES):
        return True
    if Path(path).suffix and not Path(path).suffix[1:].isdigit():  # DICOM exports are often named by a dotted UID
        return False
    with open(path, "rb") as stream:
        stream.seek(_DICOM_MAGIC_AT)
        return stream.read(4) == b"DICM"


def _plain_mode(image: Image.Image) -> Image.Image:
    """Return the picture in a mode whose array holds intensities: no palette indices, no bits, no print colors."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        colors = image.convert("RGB").getcolors(256) or []
        gray = all(r == g == b for _, (r, g, b) in colors)  # type: ignore[misc]
        return image.convert("L" if gray else "RGB")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("RGB")
    if image.mode.startswith("I;16") and image.mode != "I;16":  # foreign byte orders, which torch cannot hold
        return image.convert("I")
    return image


def _picture_reader(path: str) -> str:
    """Return Pillow's reader, unless Pillow would lose values: 16-bit channels cut to 8, or pages after the first."""
    try:
        with Image.open(path) as image:
            deep, pages = False, 1
            if image.format == "TIFF":
                tags = image.tag_v2  # type: ignore[attr-defined]
                deep = max(tags.get(_TIFF_BITS, (1,))) > 8 and tags.get(_TIFF_SAMPLES, 1) > 1
                pages = getattr(image, "n_frames", 1)
                values = image.width * image.height * pages * tags.get(_TIFF_SAMPLES, 1)
                check_size(path, values * max(tags.get(_TIFF_BITS, (1,))) // 8)
            if image.format == "PNG":
                with open(path, "rb") as stream:
                    depth, color_type = stream.read(26)[24:26]
                deep = depth == 16 and color_type in _PNG_COLOR_TYPES_WITH_CHANNELS
    except UnidentifiedImageError:  # of the formats here, Pillow lacks some kinds of TIFF
        return "itk" if has_suffix(path, (".tif", ".tiff")) and _is_tiff(path) else "pillow"
    if deep:
        return "itk_vector"
    return "itk" if pages > 1 else "pillow"


def _is_tiff(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) in _TIFF_MARKS


class _NativeNibabelReader(NibabelReader):
    """MONAI's reader, with the numbers in this machine's byte order, the only one that PyTorch takes."""

    def _get_array_data(self, *args: Any, **kwargs: Any) -> np.ndarray:
        values = super()._get_array_data(*args, **kwargs)
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def _make_pillow() -> ImageReader:
    return PILReader(converter=_plain_mode)


def _make_itk_vector() -> ImageReader:
    # ITK's Python wrapping lacks 16-bit color pixels; float32 vectors hold 16-bit values exactly
    return ITKReader(pixel_type=itk.VariableLengthVector[itk.F])


_MAKERS = {"pillow": _make_pillow, "itk_vector": _make_itk_vector, "itk": ITKReader, "nibabel": _NativeNibabelReader}


def reader_name(path: str) -> str:
    """Return which reader keeps all values and channels of this file."""
    if has_suffix(path, NIFTI_SUFFIXES):
        return "nibabel"
    if not has_suffix(path, RASTER_SUFFIXES):
        return "itk"
    return _picture_reader(path)


@lru_cache(maxsize=len(_MAKERS))
def make_loader(name: str) -> LoadImage:
    """Return MONAI's ``LoadImage`` bound to one reader.

    ``LoadImage`` falls back to other readers when its first one fails, which would silently cut 16-bit colors to 8 bits
    or read a broken file as something else; only the chosen reader is therefore left in it.
    """
    reader = _MAKERS[name]()
    log = logging.getLogger("monai.data")
    level = log.level
    log.setLevel(logging.ERROR)  # it announces every optional reader that is not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader = LoadImage(reader, image_only=True, ensure_channel_first=True, dtype=None)
    finally:
        log.setLevel(level)
    loader.readers = [reader]
    return loader
