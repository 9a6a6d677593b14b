# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion

__all__ = ["colorize", "mask_outline", "overlay_heatmap", "slice_of_largest_mass", "to_gray", "unit_range"]

ArrayLike = np.ndarray | torch.Tensor


def _as_array(value: ArrayLike) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.astype(np.float32, copy=False)


def unit_range(values: ArrayLike, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Scale values to [0, 1] and clip what lies outside.

    Args:
        values: any shape; what is not finite becomes 0.
        value_range: values that become 0 and 1; default the smallest and largest finite value.

    Raises:
        ValueError: ``value_range`` is not finite and ascending.

    Returns:
        float32 array of the same shape.
    """
    array = _as_array(values)
    finite = np.isfinite(array)
    if value_range is None:
        low, high = (float(array[finite].min()), float(array[finite].max())) if finite.any() else (0.0, 1.0)
    else:
        low, high = (float(bound) for bound in value_range)
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError(f"value_range must be two finite ascending numbers, got {value_range}.")
    span = high - low
    scaled = np.zeros_like(array) if span == 0 else np.clip((array - low) / span, 0.0, 1.0)
    return np.where(finite, scaled, 0.0).astype(np.float32)


def to_gray(image: ArrayLike, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Turn an intensity image into 8-bit pixels for display.

    Args:
        image: (H, W) gray or (H, W, 3) color.
        value_range: intensities shown black and white; default the image's own range.

    Raises:
        ValueError: the image has another shape.

    Returns:
        (H, W, 3) uint8.
    """
    array = _as_array(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(f"image must have shape (H, W) or (H, W, 3), got {tuple(array.shape)}.")
    return np.rint(unit_range(array, value_range) * 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _color_table(colormap: str) -> np.ndarray:
    # imported here because matplotlib takes longer to import than everything else in this package
    from matplotlib import colormaps

    if colormap not in colormaps:
        raise ValueError(f"colormap must be a name known to matplotlib such as 'inferno' or 'magma', got {colormap!r}.")
    table: np.ndarray = colormaps[colormap](np.arange(256))[:, :3].astype(np.float32)
    return table


def colorize(
    anomaly_map: ArrayLike, value_range: tuple[float, float] | None = None, colormap: str = "inferno"
) -> np.ndarray:
    """Show a map in a perceptually uniform color scale.

    Args:
        anomaly_map: any shape.
        value_range: values at the two ends of the color scale; default the map's own range.
        colormap: name of a matplotlib color map.

    Returns:
        float32 in [0, 1] with a last axis of three colors.
    """
    table = _color_table(colormap)
    return table[np.rint(unit_range(anomaly_map, value_range) * 255).astype(np.uint8)]


def mask_outline(mask: ArrayLike, thickness: int = 1) -> np.ndarray:
    """Border of the annotated regions, inside the mask.

    Args:
        mask: (H, W); above 0.5 is annotated.
        thickness: width of the border in pixels, at least 1.

    Raises:
        ValueError: ``thickness`` is smaller than 1.

    Returns:
        (H, W) bool.
    """
    if thickness < 1:
        raise ValueError(f"thickness must be at least 1, got {thickness}.")
    inside = _as_array(mask) > 0.5
    border: np.ndarray = inside & ~binary_erosion(inside, iterations=thickness)
    return border


def slice_of_largest_mass(anomaly_map: ArrayLike, axis: int = -1) -> int:
    """Index of the slice of a volume whose map has the largest sum above the volume's minimum.

    Args:
        anomaly_map: (H, W, D) volume.
        axis: axis that is cut.

    Returns:
        slice index; the first of equals.
    """
    array = np.moveaxis(np.nan_to_num(_as_array(anomaly_map)), axis, 0)
    return int(np.argmax(array.reshape(len(array), -1).sum(1, dtype=np.float64)))


def _blend(gray: np.ndarray, heat: np.ndarray, weight: np.ndarray) -> np.ndarray:
    blended: np.ndarray = gray.astype(np.float32) / 255 * (1 - weight[..., None]) + heat * weight[..., None]
    return blended


def overlay_heatmap(
    image: ArrayLike,
    anomaly_map: ArrayLike,
    mask: ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
    image_range: tuple[float, float] | None = None,
    colormap: str = "inferno",
    opacity: float = 0.85,
    outline_color: tuple[int, int, int] = (64, 224, 255),
    axis: int = -1,
) -> np.ndarray:
    """Lay a heat map over its image, the more opaque the larger the value, so that normal tissue stays readable.

    Args:
        image: (H, W), (H, W, 3), or a volume (H, W, D), of which the slice with the largest map mass is shown.
        anomaly_map: (H, W) or (H, W, D), larger is more abnormal.
        mask: annotation of the map's shape whose outline is drawn; default none.
        value_range: map values at the two ends of the color scale. Give all images of a set the same range, or their
            colors cannot be compared. Default the map's own range.
        image_range: intensities shown black and white; default the image's own range.
        colormap: name of a matplotlib color map.
        opacity: opacity in [0, 1] of the heat map at the upper end of the scale.
        outline_color: red, green, blue of the outline in [0, 255].
        axis: axis of a volume that is cut.

    Raises:
        ValueError: ``opacity`` is outside [0, 1], or the shapes do not agree.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> import numpy as np
        >>> from monai_anomaly.visualize import overlay_heatmap
        >>> picture = overlay_heatmap(np.zeros((8, 8)), np.eye(8))
        >>> picture.shape, picture.dtype
        ((8, 8, 3), dtype('uint8'))
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}.")
    heat_values, pixels = _as_array(anomaly_map), _as_array(image)
    annotated = None if mask is None else _as_array(mask)
    if heat_values.ndim == 3:
        if image_range is None and np.isfinite(pixels).any():
            image_range = (float(np.nanmin(pixels)), float(np.nanmax(pixels)))
        if value_range is None and np.isfinite(heat_values).any():
            value_range = (float(np.nanmin(heat_values)), float(np.nanmax(heat_values)))
        where = slice_of_largest_mass(heat_values, axis)
        heat_values, pixels = heat_values.take(where, axis), pixels.take(where, axis)
        annotated = None if annotated is None else annotated.take(where, axis)
    gray = to_gray(pixels, image_range)
    if gray.shape[:2] != heat_values.shape or (annotated is not None and annotated.shape != heat_values.shape):
        shapes = (pixels.shape, heat_values.shape, None if annotated is None else annotated.shape)
        raise ValueError(f"image, anomaly_map and mask must have the same size, got {shapes}.")
    weight = opacity * np.sqrt(unit_range(heat_values, value_range))
    blended = _blend(gray, colorize(heat_values, value_range, colormap), weight)
    pixels_out = np.rint(blended * 255).astype(np.uint8)
    if annotated is not None:
        pixels_out = _draw_outline(pixels_out, annotated, outline_color)
    return pixels_out


def _draw_outline(pixels: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Draw the mask's border in color between two dark lines, visible on bright and dark ground alike."""
    border = mask_outline(mask)
    if not border.any():
        return pixels
    halo = binary_dilation(border) & ~border
    pixels[halo] = pixels[halo] // 2
    pixels[border] = color
    return pixels
