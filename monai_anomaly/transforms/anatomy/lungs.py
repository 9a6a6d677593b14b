# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import ndimage
from skimage.exposure import equalize_adapthist
from skimage.filters import threshold_otsu
from skimage.segmentation import clear_border

from .foreground import AnatomyMask, AnatomyMaskd

COMPAT = (None, "anatpaste")
_SQUARE = np.ones((3, 3), dtype=bool)  # 8-connectivity


class LungMask(AnatomyMask):
    """Mask of the lungs in a frontal chest radiograph, found without training (2D).

    Contrast-limited histogram equalization, Otsu's threshold, what is dark, opening, no region that
    touches the edge of the image, dilation, no small region. Opacified lung and what lies behind the heart are missing,
    gas below the diaphragm may be in; the mask is empty where both lungs are opaque or run into the edge. A radiograph
    that shows air bright (MONOCHROME1) must be inverted first, or here. Several channels are averaged.

    On 80 radiographs of patients with COVID-19 the Dice is 0.57 and nine tenths of the mask is lung: good enough to
    place anomalies, not as a segmentation.

    Args:
        clahe_clip: clip limit of the equalization in (0, 1], published default 0.01. 0.02 finds more of diseased lungs,
            and more that is none.
        opening: width of the square that opens and dilates, in pixels of an image of the reference size, default 3. In
            the image it is scaled to the nearest odd number, 3 or more.
        min_area: smallest region in pixels of an image of the reference size, default 400.
        reference_size: side in pixels of the square image that these are meant for, default 256.
        invert: whether dark and bright are swapped first, for MONOCHROME1; default False.
        compat: None (default) deletes a small region; "anatpaste" its whole bounding box, as the published code, and so
            pieces of a lung beside it.

    Raises:
        ValueError: on an argument outside its range, and for a volume.

    Reference:
        J. Sato et al.: "Anatomy-aware self-supervised learning for anomaly detection in chest radiographs",
        arXiv:2205.04282, 2022 (AnatPaste).
    """

    dims: ClassVar[tuple[int, ...]] = (2,)

    def __init__(
        self,
        clahe_clip: float = 0.01,
        opening: float = 3,
        min_area: float = 400,
        reference_size: float = 256,
        invert: bool = False,
        compat: str | None = None,
    ) -> None:
        if not 0 < clahe_clip <= 1:
            raise ValueError(f"clahe_clip must be in (0, 1], got {clahe_clip!r}")
        if opening <= 0 or min_area < 0 or reference_size <= 0:
            raise ValueError(
                "opening and reference_size must be above 0 and min_area 0 or more, got "
                f"{opening!r}, {reference_size!r}, {min_area!r}"
            )
        if compat not in COMPAT:
            raise ValueError(f"compat must be one of {COMPAT}, got {compat!r}")
        self.clahe_clip = clahe_clip
        self.opening = opening
        self.min_area = min_area
        self.reference_size = reference_size
        self.invert = invert
        self.compat = compat

    def find(self, image: np.ndarray) -> np.ndarray:
        """Return the mask (H, W) of an image (C, H, W)."""
        gray = image.mean(0)
        low, high = gray.min(), gray.max()
        if not high > low:
            return np.zeros(gray.shape, dtype=bool)
        gray = (gray - low) / (high - low)
        gray = equalize_adapthist(1 - gray if self.invert else gray, clip_limit=self.clahe_clip)
        # as published; the equalization leaves next to nothing at 0, and black borders go with the edge of the image
        dark = (gray <= threshold_otsu(gray)) & (gray > 0)
        scale = np.sqrt(gray.size) / self.reference_size
        width = max(3, 2 * round((self.opening * scale - 1) / 2) + 1)
        square = np.ones((width, width), dtype=bool)
        # beyond the edge counts as dark, so that what touches the edge is not worn off it and kept
        core = ndimage.binary_erosion(dark, square, border_value=1)
        inner = clear_border(ndimage.binary_dilation(core, square))
        return self._without_small(ndimage.binary_dilation(inner, square), self.min_area * scale**2)

    def _without_small(self, mask: np.ndarray, least: float) -> np.ndarray:
        labels, count = ndimage.label(mask, _SQUARE)
        small = np.bincount(labels.ravel(), minlength=count + 1) < least
        if self.compat is None:
            return np.asarray(mask & ~small[labels])
        kept = mask.copy()
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            if small[number]:
                kept[box] = False
        return kept


class LungMaskd(AnatomyMaskd):
    """Dictionary version of :class:`LungMask`."""

    finder = LungMask


LungMaskD = LungMaskDict = LungMaskd
