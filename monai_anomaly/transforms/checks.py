# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from torch import Tensor


def prepare_image(img: NdarrayOrTensor, dims: Sequence[int], who: str) -> Tensor:
    """Return an image as float32 tensor (C, *S), a MetaTensor if it was one, after checking it."""
    return checked_image(img, dims, who, torch.float32)


def checked_image(img: NdarrayOrTensor, dims: Sequence[int], who: str, dtype: torch.dtype | None = None) -> Tensor:
    """Return an image as tensor (C, *S) of a type or its own, a MetaTensor if it was one, after checking it."""
    image = convert_to_tensor(img, track_meta=isinstance(img, MetaTensor))
    if image.is_complex():
        raise ValueError(f"{who} needs real values, got {image.dtype} in image {name_of(image)}")
    image = image if dtype is None else image.to(dtype)
    if image.ndim - 1 not in dims or image.numel() == 0:
        expected = " or ".join(f"{d}D" for d in dims)
        raise ValueError(
            f"{who} is defined for {expected} images (C, *S), got one of shape {tuple(image.shape)}"
            + ("; add a channel first with EnsureChannelFirst" if image.ndim - 1 < min(dims) else "")
        )
    low, high = torch.aminmax(image)  # NaN if there is one; cheaper than a look at every value
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"image {name_of(image)} holds NaN or infinite values: repair the file or leave it out")
    return image


def name_of(image: Any) -> str:
    """File that an image was read from, for messages."""
    return str(image.meta.get("filename_or_obj", "(no file)")) if isinstance(image, MetaTensor) else "(no file)"


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise a ValueError where an argument is none of the allowed values."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {tuple(allowed)}, got {value!r}")


def check_positive(**values: float) -> None:
    """Raise a ValueError for an argument that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")


def check_count(**values: float) -> None:
    """Raise a ValueError for an argument that is no whole number of 1 or more."""
    for name, value in values.items():
        if value != int(value) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")


def check_range(name: str, value: Sequence[float], low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
    """Return two ascending numbers within bounds, or raise a ValueError."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be two ascending numbers in [{low}, {high}], got {value!r}")
    return float(value[0]), float(value[1])


def check_sizes(unit: str, **sizes: object) -> None:
    """Raise a ValueError where a size is left to its default, a fraction, though it counts in another unit."""
    missing = [name for name, value in sizes.items() if value is None]
    if unit != "fraction" and missing:
        raise ValueError(f"the defaults are fractions of the image: with unit={unit!r} give {' and '.join(missing)}")
