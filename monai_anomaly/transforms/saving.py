# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import SaveImaged
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..utils import Keys, atomic_path, check_output
from .loading import NIFTI_CODES
from .readers import IMAGE_SUFFIXES, NIFTI_SUFFIXES, RASTER_SUFFIXES, has_suffix

_LEVELS = 65535
_SCALE, _OFFSET = "anomaly_scale", "anomaly_offset"


class SaveImageMapd(SaveImaged):
    """Writes anomaly maps in the geometry of the image file they belong to.

    The map is resized to the size that the file has. For PNG, JPEG, BMP and TIFF pictures it becomes a 16-bit gray PNG,
    laid out as a viewer shows the picture, for everything else a float32 NIfTI with the file's affine; there a 2D map
    is one slice of a volume, (x, y, 1), because that is how viewers know a slice's place and thickness. A PNG holds
    ``(value - offset) / scale`` and says scale and offset in its text, so :func:`read_map` gives the values back to
    1/65535 of their range. File names are those of the images, with a short hash of the folder and the suffix, so that
    equal names in different folders or formats do not collide.

    It is a ``SaveImaged`` by type, because that is how programs that serve a bundle know what to leave out: they return
    maps and write no files into the bundle.

    Args:
        keys: maps (1, *S).
        output_dir: folder of the files, made if missing.
        image_key: image (MetaTensor) with the source file's name, size and affine in its metadata.
        value_range: values of black and white in a PNG; None takes each map's own range.
        allow_missing_keys: leave samples without the key as they are.

    Raises:
        ValueError: when ``value_range`` is not two finite ascending numbers, the image carries no file name, or a map
            holds NaN or infinity.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        image_key: str = Keys.IMAGE,
        value_range: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir=os.fspath(output_dir), allow_missing_keys=allow_missing_keys)
        if value_range is not None and not _is_range(value_range):
            raise ValueError(f"value_range must be two finite numbers, low < high, got {tuple(value_range)}.")
        self.output_dir = check_output(output_dir)
        self.image_key = image_key
        self.value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the maps of a sample, which passes unchanged."""
        sample = dict(data)
        image = sample[self.image_key]
        source = source_file(image, self.image_key)
        for key in self.key_iterator(sample):
            values = in_source_geometry(sample[key], image, str(key))[0]
            if has_suffix(source, RASTER_SUFFIXES) and values.ndim == 2:  # a TIFF of several pages is a volume
                _write_png(output_path(self.output_dir, source, str(key), ".png"), values.T, self.value_range)
            else:
                write_nifti(output_path(self.output_dir, source, str(key), ".nii.gz"), values[None], image)
        return sample


def source_file(image: Any, image_key: str = Keys.IMAGE) -> str:
    """Name of the file that an image was loaded from.

    Args:
        image: the preprocessed image.
        image_key: what it is called in the message.

    Raises:
        ValueError: when its metadata does not say so.
    """
    source = str(image.meta.get("filename_or_obj", "")) if isinstance(image, MetaTensor) else ""
    if not source:
        raise ValueError(f"{image_key!r} carries no file name: load it with LoadImageCheckedd and keep its metadata.")
    return source


def output_path(output_dir: Path, source: str, key: str, suffix: str) -> Path:
    """Where what belongs to an image is written, see :class:`SaveImageMapd`."""
    folder, name = os.path.split(os.path.abspath(source))
    # only known suffixes: DICOM files are often named by numbers with dots, of which the last tells them apart
    own = max((end for end in IMAGE_SUFFIXES if has_suffix(name, (end,))), key=len, default="")
    place = hashlib.sha256(f"{folder}/*{own}".encode()).hexdigest()[:6]
    return output_dir / f"{name[: len(name) - len(own)]}_{place}_{key}{suffix}"


def in_source_geometry(values: Tensor, image: MetaTensor, key: str) -> np.ndarray:
    """What belongs to a preprocessed image (C, *S) at the size of the image's file (C, *T).

    Args:
        values: maps or channels of the preprocessed image's size.
        image: the preprocessed image, see :func:`resize_to_source`.
        key: what the values are called in the message.

    Raises:
        ValueError: when a value is NaN or infinite, or as :func:`resize_to_source` does.
    """
    resized: np.ndarray = resize_to_source(values, image).detach().cpu().numpy()
    if not np.isfinite(resized).all():
        source = source_file(image)
        raise ValueError(f"{key!r} of {source} holds NaN or infinity: check the network's weights and this image.")
    return resized


def _is_range(value_range: Sequence[float]) -> bool:
    return len(value_range) == 2 and bool(np.isfinite(value_range).all()) and value_range[0] < value_range[1]


def resize_to_source(anomaly_map: Tensor, image: MetaTensor) -> Tensor:
    """Bring a map (C, *S) of a preprocessed image back to the axes and the size of the image's file, (C, *T).

    Axes that were flipped or swapped on loading (``Orientation``) are put back as the affines say; sizes differ by
    (tri)linear interpolation. A crop, padding or rotation cannot be undone here.

    Args:
        anomaly_map: map of the preprocessed image's size.
        image: the preprocessed image, with the file's ``spatial_shape`` and ``original_affine`` in its metadata.

    Raises:
        ValueError: when the image does not cover the same field of view as its file.
    """
    plain = anomaly_map.as_tensor() if isinstance(anomaly_map, MetaTensor) else anomaly_map
    size = [int(axis) for axis in torch.as_tensor(image.meta["spatial_shape"]).flatten()][: plain.ndim - 1]
    plain = _to_source_axes(plain.float(), image, size)
    if list(plain.shape[1:]) == size:
        return plain
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(plain[None], size=size, mode=mode, align_corners=False)[0]


def source_affine(image: MetaTensor) -> np.ndarray:
    """Affine (4, 4) of the file that a preprocessed image was loaded from, the identity where it states none."""
    # readers of plain pictures give no affine: their pixels are the coordinates
    affine = torch.as_tensor(image.meta.get("original_affine", torch.eye(4)))
    return np.asarray(to_affine_nd(3, affine.cpu().numpy().astype(np.float64)))


def _to_source_axes(values: Tensor, image: MetaTensor, size: Sequence[int]) -> Tensor:
    """Flip and permute a map as the file's axes run, after a check that image and file show the same field of view."""
    axes = len(size)
    source = source_affine(image)
    now = np.asarray(to_affine_nd(3, torch.as_tensor(image.affine).cpu().numpy().astype(np.float64)))
    # steps of the image's voxels in voxels of the file: row f, column i
    steps = np.linalg.pinv(source[:3, :axes]) @ now[:3, :axes]
    order = np.abs(steps).argmax(1)  # the image axis that runs along each axis of the file
    shape = np.array(image.shape[1 : axes + 1], dtype=np.float64)
    first = np.linalg.pinv(source[:3, :axes]) @ (now[:3, :axes] @ np.full(axes, -0.5) + now[:3, 3] - source[:3, 3])
    signed = steps[np.arange(axes), order]
    last = first + signed * shape[order]
    wanted = np.array([(-0.5, length - 0.5) for length in size])
    covered = np.sort(np.stack([first, last], axis=1), axis=1)
    slanted = np.abs(steps).sum() > 1.01 * np.abs(signed).sum() or len(set(order.tolist())) < axes
    if slanted or (np.abs(covered - wanted) > np.maximum(1.0, np.abs(signed))[:, None]).any():
        raise ValueError(
            f"{image.meta.get('filename_or_obj', 'the image')} was cropped, padded or rotated before the network: "
            "its map does not fit the file. Leave those transforms out, or undo them first (Invertd)."
        )
    turned = values.permute(0, *(int(axis) + 1 for axis in order))
    return torch.flip(turned, [axis + 1 for axis in range(axes) if signed[axis] < 0])


def write_nifti(path: Path, values: np.ndarray, image: MetaTensor) -> None:
    """Write values (C, *T) of an image's file as float32 with the file's affine, its meaning and its units.

    An image of two axes becomes one slice (x, y, 1); of several channels, they are the fourth axis.
    """
    # the resized image's affine has other voxels; the file's own is what the map of the file's size needs
    volume = values.astype(np.float32)[..., None] if values.ndim == 3 else values.astype(np.float32)
    volume = volume[0] if len(volume) == 1 else np.moveaxis(volume, 0, -1)
    picture = nib.Nifti1Image(volume, source_affine(image))
    _take_over_codes(picture, image)
    with atomic_path(path) as temporary:
        nib.save(picture, temporary)


def _take_over_codes(picture: nib.Nifti1Image, image: MetaTensor) -> None:
    """Let the header say what the file's does: which space the affine leads to, and in which units."""
    sform, qform, units = map(int, image.meta.get(NIFTI_CODES, (0, 0, 0)))
    if sform or qform:  # neither: the file is no NIfTI, or leads to no known space
        affine = picture.affine.copy()  # setting a form changes that of the picture
        picture.set_sform(affine, sform)
        picture.set_qform(affine, qform)
    picture.header["xyzt_units"] = units


def _write_png(path: Path, values: np.ndarray, value_range: tuple[float, float] | None) -> None:
    low, high = value_range or (float(values.min()), float(values.max()))
    scale = (high - low) / _LEVELS if high > low else 1.0
    levels = np.clip(np.rint((values.astype(np.float64) - low) / scale), 0, _LEVELS).astype(np.uint16)
    text = PngInfo()
    text.add_text(_SCALE, repr(scale))
    text.add_text(_OFFSET, repr(low))
    with atomic_path(path) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG", pnginfo=text)


def read_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a map that :class:`SaveImageMapd` wrote.

    Args:
        path: a ``.png`` or NIfTI file.

    Returns:
        float32 values, (H, W) rows first for a PNG, (x, y, z) for NIfTI.

    Raises:
        ValueError: when a PNG does not say its scale.
    """
    if has_suffix(path, NIFTI_SUFFIXES):
        return np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    with Image.open(path) as picture:
        if _SCALE not in picture.info:
            raise ValueError(
                f"{path} is not an anomaly map: it does not say its scale; give a file that SaveImageMapd wrote."
            )
        levels = np.asarray(picture, dtype=np.float64)
        return (levels * float(picture.info[_SCALE]) + float(picture.info[_OFFSET])).astype(np.float32)


SaveImageMapD = SaveImageMapDict = SaveImageMapd
