# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, features

__all__ = ["encode_data_uri", "fit_within"]


def fit_within(image: Image.Image, size: int) -> Image.Image:
    """Shrink a picture so that its longer side has at most ``size`` pixels; a smaller one stays as it is."""
    scale = size / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX if image.mode == "1" else Image.Resampling.LANCZOS)


def encode_data_uri(pixels: np.ndarray, size: int = 192, quality: int = 82) -> str:
    """Compress a picture into a ``data:`` address that a page can show without any other file.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
        size: largest side in pixels, at least 8.
        quality: WebP (or, where Pillow lacks WebP, JPEG) quality in [1, 100].

    Raises:
        ValueError: ``pixels`` is not an 8-bit picture, or ``size`` or ``quality`` are out of range.

    Returns:
        ``data:image/webp;base64,...``
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        raise ValueError(f"pixels must be (H, W) or (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}.")
    if size < 8 or not 1 <= quality <= 100:
        raise ValueError(f"size must be at least 8 and quality in [1, 100], got {size} and {quality}.")
    kind = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    fit_within(Image.fromarray(pixels), size).save(buffer, format=kind.upper(), quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
