# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, TransformBackends

from ..utils import check_user_file
from .formats import UnusableImageError, check_image_file
from .readers import RASTER_SUFFIXES, has_suffix, make_loader, reader_name

SOURCE_RANGE = "source_range"
EIGHT_BIT = "eight_bit"
NIFTI_CODES = "nifti_codes"  # sform, qform and units; zeros for a file that has none
# Everything else in a header is dropped: it differs between files, so that batches of mixed files cannot be collated,
# and DICOM headers hold the patient's name, which must not reach outputs.
_KEPT_META = (MetaKeys.ORIGINAL_AFFINE, MetaKeys.AFFINE, MetaKeys.SPACE, "filename_or_obj")


class LoadImageChecked(Transform):
    """Load one image with MONAI's ``LoadImage``, keep its values and channels, and check it.

    The reader follows the file: Pillow for 8-bit pictures and 16-bit gray, ITK for 16-bit color, multi-page TIFF and
    DICOM (which inverts MONOCHROME1, so that larger is brighter), Nibabel for NIfTI. Spatial axes come in MONAI's order
    (x, y[, z]). Pictures without a place in the patient (PNG, JPEG, BMP, TIFF) get the identity as affine. Pixels are
    taken as stored: an EXIF orientation is not applied, since masks do not carry one.

    Args:
        spatial_dims: 2 or 3 to demand that many spatial axes; with 2 a trailing axis of length one is removed
            (single DICOM, one-slice NIfTI). None (default) takes what the file has.
        in_channels: number of channels to demand. None (default) takes what the file has.

    What a reader would take without a word is refused before: pixel data that is shorter than its header promises (the
    rest would be whatever is in memory), pixels in another file outside the folder of their header, complex values, a
    place in space that is none, a rescaling by zero, named pipes and devices, and images of more than 4 GiB.

    Returns:
        float32 MetaTensor (C, x, y[, z]); ``meta["source_range"]`` is (0.0, 255.0) for 8-bit files, else the (minimum,
        maximum) of this image; ``meta["filename_or_obj"]`` and the affine are the file's.

    Raises:
        ValueError: for other arguments, and naming file and remedy when a file is missing, empty, unreadable, holds NaN
            or infinity, has other dimensions or channels than demanded, or is refused as said above.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, spatial_dims: int | None = None, in_channels: int | None = None) -> None:
        if spatial_dims not in (None, 2, 3):
            raise ValueError(f"spatial_dims must be 2, 3 or None, got {spatial_dims!r}")
        if in_channels is not None and in_channels < 1:
            raise ValueError(f"in_channels must be at least 1 or None, got {in_channels!r}")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels

    def __call__(self, filename: str | os.PathLike[str]) -> MetaTensor:
        """Return the checked image of one file (or of a folder that holds one DICOM series)."""
        path = os.fspath(filename)
        native = _read(path)
        if native.is_complex():
            raise ValueError(f"image {path} holds complex values: save its magnitude, or two channels")
        values = self._fit_axes(native.as_tensor(), path)
        return checked_image(values, _slim_meta(native, path), path, self.in_channels)

    def _fit_axes(self, image: torch.Tensor, path: str) -> torch.Tensor:
        axes = image.ndim - 1
        if self.spatial_dims == 2 and axes == 3 and image.shape[-1] == 1:
            return image.squeeze(-1)
        if self.spatial_dims == axes or (self.spatial_dims is None and axes in (2, 3)):
            return image
        if axes not in (2, 3):
            raise ValueError(
                f"image {path} has {axes} spatial axes {tuple(image.shape[1:])}, but two or three are allowed: "
                "save its parts as separate images"
            )
        raise ValueError(
            f"image {path} has {axes} spatial axes {tuple(image.shape[1:])}, but spatial_dims={self.spatial_dims}: "
            + (
                "save its slices as separate images, or set spatial_dims to 3 (in a bundle: three axes in "
                "--spatial_size, or configs/volumes.json where it has one, for slices)"
                if axes == 3
                else "set spatial_dims to 2 (in a bundle: two axes in --spatial_size, and no configs/volumes.json)"
            )
        )


class LoadImageCheckedd(MapTransform):
    """Dictionary version of :class:`LoadImageChecked`.

    Args:
        keys: keys whose values are file names.
        spatial_dims: see :class:`LoadImageChecked`.
        in_channels: see :class:`LoadImageChecked`.
        allow_missing_keys: whether a sample without the key passes through.

    Example:
        >>> from monai_anomaly.data import load_datalist, sample_dir
        >>> from monai_anomaly.transforms import LoadImageCheckedd
        >>> item = load_datalist(f"{sample_dir()}/datalist.json", "testing", limit=1)[0]
        >>> image = LoadImageCheckedd("image", spatial_dims=2, in_channels=1)(item)["image"]
        >>> image.shape[0], image.dtype
        (1, torch.float32)
    """

    backend = LoadImageChecked.backend

    def __init__(
        self,
        keys: KeysCollection,
        spatial_dims: int | None = None,
        in_channels: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.loader = LoadImageChecked(spatial_dims, in_channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with the file names replaced by images."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.loader(d[key])
        return d


def _read(path: str) -> MetaTensor:
    """Return the file's array, channel first, in its own number type."""
    status = check_user_file(path, "image", "correct its path in the datalist, or dataset_dir", folder=True)
    if status.st_size == 0 and os.path.isfile(path):
        raise ValueError(f"image {path} is an empty file: copy it again or remove it from the datalist")
    try:
        check_image_file(path)
        return make_loader(reader_name(path))(path)
    except UnusableImageError:
        raise
    except Exception as error:  # readers raise their own kinds
        raise ValueError(
            f"image {path} cannot be read ({_first_line(error)}): it is damaged or not of the format its suffix says; "
            "copy or export it again, or remove it from the datalist"
        ) from error


def checked_image(values: torch.Tensor, meta: dict[str, Any], path: str, in_channels: int | None) -> MetaTensor:
    """What :class:`LoadImageChecked` returns, of values (C, *S) in the number type of their file.

    Args:
        values: the image as it was stored.
        meta: its name and place.
        path: what it is called in messages.
        in_channels: number of channels to demand; None takes any.

    Raises:
        ValueError: when a value is NaN or infinite, there are none, or there are other channels than demanded.
    """
    eight_bit = values.dtype == torch.uint8
    values = values.to(torch.float32)
    _check_values(values, path)
    _check_channels(values, path, in_channels)
    known = {
        MetaKeys.SPATIAL_SHAPE: np.asarray(values.shape[1:]),
        EIGHT_BIT: eight_bit,
        SOURCE_RANGE: (0.0, 255.0) if eight_bit else (float(values.min()), float(values.max())),
    }
    return MetaTensor(values, meta=meta | known)


def _check_channels(image: torch.Tensor, path: str, in_channels: int | None) -> None:
    if in_channels not in (None, image.shape[0]):
        raise ValueError(
            f"image {path} has {image.shape[0]} channel(s), but in_channels={in_channels}: "
            f"convert it, or train a network with in_channels={image.shape[0]} if all images are like it"
        )


def _check_values(image: torch.Tensor, path: str) -> None:
    if image.numel() == 0:
        raise ValueError(f"image {path} holds no pixels: export it again or remove it from the datalist")
    if not bool(torch.isfinite(image).all()):
        raise ValueError(
            f"image {path} holds NaN or infinite values: replace them (for instance by the background value) "
            "or remove the image from the datalist"
        )


def _first_line(error: BaseException) -> str:
    """Return one line that says why, from the innermost error (MONAI and ITK wrap it in long texts)."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200] if lines else 'no message'}"


def _slim_meta(image: MetaTensor, path: str) -> dict[str, Any]:
    meta = {key: image.meta[key] for key in _KEPT_META if key in image.meta}
    meta[NIFTI_CODES] = np.array([int(image.meta.get(code, 0)) for code in ("sform_code", "qform_code", "xyzt_units")])
    if has_suffix(path, RASTER_SUFFIXES):
        meta[MetaKeys.AFFINE] = torch.eye(4, dtype=torch.float64)
        meta[MetaKeys.ORIGINAL_AFFINE] = np.eye(4)
    return meta


LoadImageCheckedD = LoadImageCheckedDict = LoadImageCheckedd
