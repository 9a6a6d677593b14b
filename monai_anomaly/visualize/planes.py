# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..utils import Keys
from .overlay import slice_of_largest_mass

__all__ = ["INTENSITIES", "describe_slice", "display_planes"]

#: Values of black and white in images as the bundles scale them.
INTENSITIES = (-1.0, 1.0)


def display_planes(arrays: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Pictures of one sample as a viewer shows them; of volumes, the axial slice where the anomaly map is largest.

    MONAI's readers put the horizontal axis of a picture first; here rows come first. Volumes are taken to be in RAS
    orientation, as NIfTI files mostly are, and shown with anterior up.

    Args:
        arrays: (C, *S) tensors of one size by name; ``anomaly_map`` among them for volumes. Three channels are taken as
            colors, of any other number the first is shown.

    Raises:
        ValueError: when an array is neither 2D nor 3D behind its channels.

    Returns:
        (H, W) or (H, W, 3) float32 arrays by the same names.
    """
    planes = {name: np.moveaxis(array.detach().cpu().float().numpy(), 0, -1) for name, array in arrays.items()}
    dims = {plane.ndim - 1 for plane in planes.values()}
    if dims == {3}:
        where = slice_of_largest_mass(planes[Keys.MAP][..., 0])
        return {name: np.rot90(_colors(plane[:, :, where])).copy() for name, plane in planes.items()}
    if dims != {2}:
        raise ValueError(f"arrays must all be (C, H, W) or all be (C, H, W, D), got {sorted(dims)} axes.")
    return {name: np.swapaxes(_colors(plane), 0, 1).copy() for name, plane in planes.items()}


def describe_slice(arrays: Mapping[str, Tensor]) -> str:
    """Which slice of a volume :func:`display_planes` shows, and whether the mask is elsewhere; empty for a picture.

    Args:
        arrays: as for :func:`display_planes`; ``label`` is the mask, where there is one.
    """
    anomaly_map, label = arrays[Keys.MAP], arrays.get(Keys.LABEL)
    if anomaly_map.ndim != 4:
        return ""
    where = slice_of_largest_mass(anomaly_map[0].detach().cpu().numpy())
    text = f"slice {where + 1} of {anomaly_map.shape[-1]}"
    elsewhere = label is not None and bool((label > 0).any()) and not bool((label[..., where] > 0).any())
    return f"{text}, annotated in others only" if elsewhere else text


def _colors(plane: np.ndarray) -> np.ndarray:
    return plane if plane.shape[-1] == 3 else plane[..., 0]
