# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor

from .loading import SOURCE_RANGE


class ScaleSourceRange(Transform):
    """Map the range of the source file, not that of its content, linearly to [minv, maxv], and clip to it.

    y = (x - low) / (high - low) * (maxv - minv) + minv, where (low, high) is the fixed ``source_range`` if given, else
    the ``meta["source_range"]`` that :class:`LoadImageChecked` wrote, else (0, 255) for an 8-bit array, else its
    extremes. An image with low = high becomes ``minv`` everywhere.

    Args:
        minv: value of the range's lower end, default -1.
        maxv: value of the range's upper end, default 1.
        source_range: (low, high) in the units of the file, e.g. (-1000, 400) Hounsfield units for CT. None (default):
            of each image.

    Raises:
        ValueError: when minv >= maxv or source_range is not two ascending numbers.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, minv: float = -1.0, maxv: float = 1.0, source_range: Sequence[float] | None = None) -> None:
        if not minv < maxv:
            raise ValueError(f"minv must be below maxv, got minv={minv!r}, maxv={maxv!r}")
        if source_range is not None and (len(source_range) != 2 or not source_range[0] < source_range[1]):
            raise ValueError(f"source_range must be two ascending numbers or None, got {source_range!r}")
        self.minv = minv
        self.maxv = maxv
        self.source_range = None if source_range is None else (float(source_range[0]), float(source_range[1]))

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Return the image (C, *S) scaled, as float32."""
        tensor = convert_to_tensor(img, track_meta=get_track_meta())
        low, high = self.source_range or _range_of(tensor)
        image = tensor.to(torch.float32)
        if high <= low:
            return torch.full_like(image, self.minv)
        scaled = (image - low) * ((self.maxv - self.minv) / (high - low)) + self.minv
        return scaled.clamp(self.minv, self.maxv)

    def undo(self, scaled: torch.Tensor, img: torch.Tensor) -> torch.Tensor:
        """Return values in [minv, maxv] that belong to a scaled image to the units of its file.

        Args:
            scaled: any shape, such as a restoration of the image.
            img: the scaled image, with ``meta["source_range"]`` unless this transform has a fixed range.

        Raises:
            ValueError: when the range is neither fixed nor in the metadata.
        """
        if self.source_range is None and not (isinstance(img, MetaTensor) and SOURCE_RANGE in img.meta):
            raise ValueError(
                "the image does not say the range of its file: load it with LoadImageChecked and keep its metadata, or "
                "give source_range"
            )
        low, high = self.source_range or _range_of(img)
        return (scaled - self.minv) * ((high - low) / (self.maxv - self.minv)) + low


class ScaleSourceRanged(MapTransform):
    """Dictionary version of :class:`ScaleSourceRange`.

    Args:
        keys: keys of the images.
        minv: see :class:`ScaleSourceRange`.
        maxv: see :class:`ScaleSourceRange`.
        source_range: see :class:`ScaleSourceRange`.
        allow_missing_keys: whether a sample without the key passes through.

    Example:
        >>> from monai.transforms import Compose
        >>> from monai_anomaly.data import load_datalist, sample_dir
        >>> from monai_anomaly.transforms import LoadImageCheckedd, ScaleSourceRanged
        >>> item = load_datalist(f"{sample_dir()}/datalist.json", "testing", limit=1)[0]
        >>> image = Compose([LoadImageCheckedd("image"), ScaleSourceRanged("image")])(item)["image"]
        >>> -1 <= float(image.min()) < float(image.max()) <= 1
        True
    """

    backend = ScaleSourceRange.backend

    def __init__(
        self,
        keys: KeysCollection,
        minv: float = -1.0,
        maxv: float = 1.0,
        source_range: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scaler = ScaleSourceRange(minv, maxv, source_range)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its images scaled."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.scaler(d[key])
        return d


def _range_of(image: torch.Tensor) -> tuple[float, float]:
    if isinstance(image, MetaTensor) and SOURCE_RANGE in image.meta:
        low, high = image.meta[SOURCE_RANGE]
        return float(low), float(high)
    if image.dtype == torch.uint8:
        return 0.0, 255.0
    return float(image.min()), float(image.max())


ScaleSourceRangeD = ScaleSourceRangeDict = ScaleSourceRanged
