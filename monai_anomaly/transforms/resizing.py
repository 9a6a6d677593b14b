# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import Resized
from monai.utils import InterpolateMode, fall_back_tuple

_LINEAR = {1: InterpolateMode.LINEAR, 2: InterpolateMode.BILINEAR, 3: InterpolateMode.TRILINEAR}


class ResizeImaged(Resized):
    """Resize images: averaged over areas where they shrink, linearly interpolated where they grow.

    MONAI's ``area`` repeats pixels where an image grows: blocks with edges that no image has, which a pre-trained
    network sees. An image that shrinks along one axis and grows along another is interpolated linearly, after MONAI's
    Gaussian filter along the axis that shrinks.

    Args:
        keys: keys of the images (C, *S).
        spatial_size: wanted *S; a number below 1 leaves the axis as it is.
        allow_missing_keys: whether a sample without the key passes through.

    Example:
        >>> import torch
        >>> from monai_anomaly.transforms import ResizeImaged
        >>> step = torch.tensor([0.0, 1.0]).reshape(1, 1, 2)
        >>> ResizeImaged("image", (1, 4))({"image": step})["image"].flatten().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """

    def __init__(
        self, keys: KeysCollection, spatial_size: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, spatial_size, allow_missing_keys=allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Return the sample with its images resized."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            size = tuple(sample[key].shape[1:])
            wanted = fall_back_tuple(self.resizer.spatial_size, size)
            pairs = list(zip(size, wanted, strict=True))
            grows, shrinks = (any(compare) for compare in ([b > a for a, b in pairs], [b < a for a, b in pairs]))
            mode = _LINEAR[len(size)] if grows else InterpolateMode.AREA
            sample[key] = self.resizer(sample[key], mode=mode, anti_aliasing=grows and shrinks, lazy=lazy)
        return sample


ResizeImageD = ResizeImageDict = ResizeImaged
