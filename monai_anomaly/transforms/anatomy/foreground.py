# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the object is: from an image (C, *S) to a mask (1, *S), always the same for the same image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from scipy import ndimage
from torch import Tensor

from ...utils import Keys
from ..checks import checked_image


class AnatomyMask(Transform):
    """Base of what finds the object in an image; a subclass says how in :meth:`find`."""

    backend = [TransformBackends.NUMPY]
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    """spatial dimensions that the mask is defined for."""

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Find the object.

        Args:
            img: image (C, *S), any type of real numbers.

        Returns:
            (1, *S), bool, on the image's device; with the meta data of the image where it has some.

        Raises:
            ValueError: when the image holds NaN or infinite values, or has too few or too many axes.
        """
        image = checked_image(img, self.dims, type(self).__name__)
        values = image.as_tensor() if isinstance(image, MetaTensor) else image
        found = self.find(values.detach().cpu().numpy().astype(np.float64))
        mask = torch.from_numpy(np.ascontiguousarray(found[None], dtype=bool)).to(image.device)
        return MetaTensor(mask).copy_meta_from(image) if isinstance(image, MetaTensor) else mask

    @abstractmethod
    def find(self, image: np.ndarray) -> np.ndarray:
        """Return the mask (*S), bool, of an image (C, *S), float64."""


class AboveMinimum(AnatomyMask):
    """Mask of what is brighter than the background, the smallest value: the brain in a skull-stripped scan.

    A voxel is inside if any channel is above that channel's minimum in the image, as for the brains of I. Lagogiannis
    et al.: "Unsupervised Pathology Detection", IEEE TMI 2024, and M. Baugh et al.: "Image-conditioned Diffusion Models
    for Medical Anomaly Detection", 2024.

    Args:
        fill_holes: whether what is enclosed by the object belongs to it; default False, as published. In 3D a hole must
            be enclosed in space, not only in a slice.
    """

    def __init__(self, fill_holes: bool = False) -> None:
        self.fill_holes = fill_holes

    def find(self, image: np.ndarray) -> np.ndarray:
        """Return the mask (*S) of an image (C, *S)."""
        mask = (image > image.min(axis=tuple(range(1, image.ndim)), keepdims=True)).any(0)
        return np.asarray(ndimage.binary_fill_holes(mask)) if self.fill_holes else np.asarray(mask)


class DifferentFromBackground(AnatomyMask):
    """Mask of what differs from a background of known brightness: ``mean_c |x_c - brightness| > tolerance``.

    A median filter then removes specks and holes; at the border it sees the outermost voxels repeated
    (H. Schlueter, J. Tan, B. Hou, B. Kainz: "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and
    Localization", ECCV 2022).

    Args:
        brightness: of the background, in units of the image; paper's for chest radiographs 0 of 255.
        tolerance: largest mean difference of the background from it, in units of the image; paper's for chest
            radiographs 20 of 255.
        median: width of the median filter in voxels, odd; paper's default 7, 1: none.

    Raises:
        ValueError: when the tolerance is below 0, or the width even or below 1.
    """

    def __init__(self, brightness: float, tolerance: float, median: int = 7) -> None:
        if tolerance < 0:
            raise ValueError(f"tolerance must be 0 or more, got {tolerance!r}")
        if median < 1 or median % 2 == 0:
            raise ValueError(f"median must be an odd number of voxels, got {median!r}")
        self.brightness = brightness
        self.tolerance = tolerance
        self.median = median

    def find(self, image: np.ndarray) -> np.ndarray:
        """Return the mask (*S) of an image (C, *S)."""
        different = abs(image - self.brightness).mean(0) > self.tolerance
        # the median of an odd number of zeros and ones is their majority
        share = ndimage.uniform_filter(different.astype(np.float64), self.median, mode="nearest")
        return np.asarray(share > 0.5)


class AnatomyMaskd(MapTransform):
    """Dictionary version of a mask: writes where the object of an image is, beside the image.

    It draws nothing, so that MONAI's ``CacheDataset`` and ``PersistentDataset`` find each mask once, if it stands
    before the first random transform. Subclasses name their array version in ``finder``; it gets the other arguments.

    Args:
        keys: key of the image, one.
        finder: the array version; a subclass makes its own.
        mask_key: where the mask goes; default ``"foreground"``.
        allow_missing_keys: whether a sample without the image passes through.
        kwargs: arguments of the array version.

    Raises:
        ValueError: when there is more than one key, or not exactly one array version.
    """

    backend = AnatomyMask.backend
    finder: ClassVar[Callable[..., AnatomyMask] | None] = None

    def __init__(
        self,
        keys: KeysCollection = Keys.IMAGE,
        finder: AnatomyMask | None = None,
        *,
        mask_key: str = Keys.FOREGROUND,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one image, got {self.keys}")
        maker = type(self).finder
        if finder is None and maker is not None:
            finder = maker(**kwargs)
        elif finder is None or maker is not None:
            raise ValueError("give finder= to AnatomyMaskd, and to its subclasses the arguments of the array version")
        elif kwargs:
            raise ValueError(f"a ready finder takes no more arguments, got {sorted(kwargs)}")
        self.transform = finder
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with the mask of its image."""
        d = dict(data)
        for key in self.key_iterator(d):
            try:
                d[self.mask_key] = self.transform(d[key])
            except ValueError as error:
                raise ValueError(f'key "{key}": {error}') from error
        return d


class AboveMinimumd(AnatomyMaskd):
    """Dictionary version of :class:`AboveMinimum`."""

    finder = AboveMinimum


class DifferentFromBackgroundd(AnatomyMaskd):
    """Dictionary version of :class:`DifferentFromBackground`."""

    finder = DifferentFromBackground


AboveMinimumD = AboveMinimumDict = AboveMinimumd
DifferentFromBackgroundD = DifferentFromBackgroundDict = DifferentFromBackgroundd
