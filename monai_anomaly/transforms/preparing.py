# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.data.utils import is_no_channel
from monai.transforms import EnsureChannelFirst, MapTransform, Transform
from monai.utils import MetaKeys, TransformBackends, convert_to_tensor

from ..utils import plain_tensor
from .loading import NIFTI_CODES, SOURCE_RANGE, checked_image

_NO_CHANNEL = "no_channel"
# Where the image is stays; what else another program noted may hold a patient's name.
_PLACE = (MetaKeys.AFFINE, MetaKeys.SPACE)


class PrepareImage(Transform):
    """Bring an image that another program has loaded to what :class:`LoadImageChecked` gives: channel first, checked.

    Programs that serve a bundle, such as MONAI Deploy, read files themselves, leave a bundle's loader out and hand an
    array over. An image that :class:`LoadImageChecked` has loaded passes as it is.

    The channels are where the metadata's ``original_channel_dim`` says. Where it says nothing, or an axis is left that
    it cannot be right about, the first axis of ``in_channels`` counts, then the last; a trailing axis of length one of
    a 2D image is the one slice of a volume.

    Args:
        spatial_dims: number of spatial axes, 2 or 3.
        in_channels: number of channels, default 1.

    Raises:
        ValueError: for other arguments, and for an image that holds NaN or infinity or whose axes do not fit.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, spatial_dims: int, in_channels: int = 1) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels!r}")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels

    def __call__(self, img: NdarrayOrTensor) -> MetaTensor:
        """Prepare one image.

        Args:
            img: (*S), (C, *S) or (*S, C), spatial axes in MONAI's order (x, y[, z]).

        Returns:
            float32 (C, *S) with the metadata of :class:`LoadImageChecked`; the name of a file only where the given
            metadata has one.
        """
        image = img if isinstance(img, MetaTensor) else MetaTensor(convert_to_tensor(img, track_meta=False))
        if SOURCE_RANGE in image.meta:
            return image
        meta = {key: image.meta[key] for key in _PLACE if image.meta.get(key) is not None}
        name = str(image.meta.get("filename_or_obj") or "")
        named = {"filename_or_obj": name} if name else {}
        # what the map has to fit is the image as it comes in, whatever was done to its file before
        place = {MetaKeys.ORIGINAL_AFFINE: np.asarray(image.affine), NIFTI_CODES: np.zeros(3, dtype=int)}
        first = EnsureChannelFirst(channel_dim=self._channel_dim(image, name))(image)
        values = plain_tensor(first)
        values = values.squeeze(-1) if values.ndim == self.spatial_dims + 2 else values  # the axis of one slice
        return checked_image(values, meta | named | place, name or "of the request", self.in_channels)

    def _channel_dim(self, image: MetaTensor, name: str) -> str | int:
        """Where the channels are, of an image whose axes can be told apart."""
        dims, shape = self.spatial_dims, tuple(image.shape)
        said = image.meta.get(MetaKeys.ORIGINAL_CHANNEL_DIM)
        if len(shape) == dims:
            return _NO_CHANNEL
        if len(shape) == dims + 1:
            if said is not None and not is_no_channel(said):
                return int(said)
            if said is not None and dims == 2 and shape[-1] == 1:  # (x, y, 1): a volume of one slice
                return _NO_CHANNEL
            for axis in (0, -1) if said is None else (-1, 0):
                if shape[axis] == self.in_channels:
                    return axis
        raise ValueError(
            f"image {name or 'of the request'} has shape {shape}, which is no image of {dims} spatial axes and "
            f"{self.in_channels} channel(s): set in_channels and spatial_size to what the images have, or hand over "
            "one image at a time"
        )


class PrepareImaged(MapTransform):
    """Dictionary version of :class:`PrepareImage`.

    Args:
        keys: keys of the images.
        spatial_dims: see :class:`PrepareImage`.
        in_channels: see :class:`PrepareImage`.
        allow_missing_keys: whether a sample without the key passes through.
    """

    backend = PrepareImage.backend

    def __init__(
        self, keys: KeysCollection, spatial_dims: int, in_channels: int = 1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.prepare = PrepareImage(spatial_dims, in_channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its images prepared."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.prepare(d[key])
        return d


PrepareImageD = PrepareImageDict = PrepareImaged
