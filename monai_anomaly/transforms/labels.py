# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Resize, Transform
from monai.utils import TransformBackends
from nibabel.orientations import aff2axcodes

from ..utils import Keys
from .loading import LoadImageChecked
from .readers import RASTER_SUFFIXES, has_suffix

NOT_ANNOTATED = -1.0


class PrepareLabel(Transform):
    """Make the pixel label of an image: its mask file as 0/1, else zeros if healthy, else -1 ("not annotated").

    Every sample then has a label of the image's size, and pixel metrics leave out what nobody annotated. To be used on
    the image as loaded, before it is resized.

    Args:
        check_orientation: whether an image and a mask that both state axis directions (NIfTI, DICOM) must agree on
            them; default True.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, check_orientation: bool = True) -> None:
        self.check_orientation = check_orientation

    def __call__(
        self, image: torch.Tensor, label: str | os.PathLike[str] | None = None, target: int | None = None
    ) -> MetaTensor:
        """Return the label of one image.

        Args:
            image: (C, *S), as :class:`LoadImageChecked` gives it.
            label: mask file; every value above 0 is abnormal. None or "" where there is none.
            target: 0 healthy, 1 anomalous, None or another value if unknown.

        Returns:
            float32 MetaTensor (1, *S) of 0 and 1, or of -1 in every pixel, with the image's affine.

        Raises:
            ValueError: naming both files, when the mask does not fit the image or contradicts its target.
        """
        if label:
            values = self._load(image, os.fspath(label), target)
        else:
            values = torch.full((1, *image.shape[1:]), 0.0 if target == 0 else NOT_ANNOTATED)
        meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
        if label:
            meta["filename_or_obj"] = os.fspath(label)
        return MetaTensor(values, meta=meta)

    def mask_values(self, image: torch.Tensor, label: str | os.PathLike[str]) -> torch.Tensor:
        """Return the values of a mask file as they are, (1, *S), after checking that it fits its image.

        Args:
            image: (C, *S), as :class:`LoadImageChecked` gives it.
            label: mask file.

        Raises:
            ValueError: naming both files.
        """
        path, of = os.fspath(label), _name(image)
        mask = LoadImageChecked(spatial_dims=image.ndim - 1)(path)
        if mask.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"mask {path} is of size {tuple(mask.shape[1:])}, but its image {of} of {tuple(image.shape[1:])}: "
                "save the mask on the grid of its image, or correct the pair in the datalist"
            )
        if self.check_orientation:
            _check_axes(image, mask, path)
        values = mask.as_tensor()
        if not bool((values == values[:1]).all()):
            raise ValueError(f"mask {path} of image {of} has {len(values)} different channels: save it as one channel")
        values = values[:1]
        if has_suffix(path, (".jpg", ".jpeg")) and bool(((values > 0) & (values < values.max())).any()):
            raise ValueError(
                f"mask {path} of image {of} is a JPEG with in-between values, whose compression noise would count as "
                "abnormal: threshold it and save it as PNG"
            )
        return values

    def _load(self, image: torch.Tensor, path: str, target: int | None) -> torch.Tensor:
        of = _name(image)
        binary = (self.mask_values(image, path) > 0).to(torch.float32)
        if target == 0 and bool(binary.any()):
            raise ValueError(
                f"image {of} has target 0 (healthy), but its mask {path} marks {int(binary.sum())} pixels: "
                "correct the target or the mask in the datalist"
            )
        return binary


class PrepareLabeld(MapTransform):
    """Dictionary version of :class:`PrepareLabel`; the label key is made where a sample lacks it.

    Args:
        keys: key(s) of the mask file, replaced by the label; default ``"label"``.
        image_key: key of the loaded image; default ``"image"``.
        target_key: key of the image's target; default ``"target"``.
        check_orientation: see :class:`PrepareLabel`.
    """

    backend = PrepareLabel.backend

    def __init__(
        self,
        keys: KeysCollection = Keys.LABEL,
        image_key: str = Keys.IMAGE,
        target_key: str = Keys.TARGET,
        check_orientation: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key
        self.target_key = target_key
        self.prepare = PrepareLabel(check_orientation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its label(s) prepared."""
        d = dict(data)
        for key in self.keys:
            d[key] = self.prepare(d[self.image_key], d.get(key), d.get(self.target_key))
        return d


def _name(image: torch.Tensor) -> str:
    return str(image.meta.get("filename_or_obj", "(no file)")) if isinstance(image, MetaTensor) else "(no file)"


def _check_axes(image: torch.Tensor, mask: MetaTensor, path: str) -> None:
    of = _name(image)
    if not isinstance(image, MetaTensor) or has_suffix(of, RASTER_SUFFIXES) or has_suffix(path, RASTER_SUFFIXES):
        return
    directions = [aff2axcodes(x.affine.numpy()) for x in (image, mask)]
    if directions[0] != directions[1]:
        raise ValueError(
            f"mask {path} has axis directions {directions[1]}, but its image {of} {directions[0]}: save the mask on "
            "the grid of its image, or set check_orientation to False if only its header is wrong"
        )


class ResizeLabeld(MapTransform):
    """Resizes pixel labels by the nearest neighbor; one whose annotated pixels all get lost becomes "not annotated".

    Such an image would otherwise count as normal in every pixel, though somebody has outlined a lesion in it.

    Args:
        keys: labels (1, *S) as :class:`PrepareLabeld` makes them.
        spatial_size: size to bring them to.
        allow_missing_keys: leave samples without the key as they are.
    """

    def __init__(
        self, keys: KeysCollection, spatial_size: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resize = Resize(spatial_size, mode="nearest-exact")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize the labels of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            small = self.resize(sample[key])
            lost = bool((sample[key] > 0).any()) and not bool((small > 0).any())
            sample[key] = torch.full_like(small, NOT_ANNOTATED) if lost else small
        return sample


PrepareLabelD = PrepareLabelDict = PrepareLabeld
ResizeLabelD = ResizeLabelDict = ResizeLabeld
