# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Images, objects and parts that several tests make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImage, Resize, ScaleIntensity
from scipy import ndimage
from torch import Tensor

from monai_anomaly.transforms.synthesis.anomaly import RandAnomaly
from monai_anomaly.transforms.synthesis.plan import Patch


def pictures(*shape: int, number: int = 2, seed: int = 0) -> list[Tensor]:
    """Smooth images of the same range in [0, 1]."""
    rng = np.random.RandomState(seed)
    images = ndimage.gaussian_filter(rng.rand(number, *shape), [0, 0, *[1.5] * (len(shape) - 1)])
    low, high = (getattr(images, name)(axis=tuple(range(2, images.ndim)), keepdims=True) for name in ("min", "max"))
    return list(torch.from_numpy(((images - low) / (high - low)).astype(np.float32)))


def ball(size: tuple[int, ...], center: tuple[float, ...], radius: float) -> np.ndarray:
    """An object."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    return np.asarray(np.linalg.norm(grid - np.array(center), axis=-1) <= radius)


def patch_of(
    method: RandAnomaly, own: Tensor, source: Any, seed: int = 0, foreground: np.ndarray | None = None
) -> Patch:
    """The only part that is drawn."""
    plan = method.plan(np.random.RandomState(seed), own, None if foreground is None else foreground[None], [source])
    (patch,) = plan.patches
    return patch


def box_of(patch: Patch) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(patch.corner, patch.mask.shape, strict=True))


def radiographs(folder: Path) -> list[Tensor]:
    """Two chest radiographs of 128 x 128 pixels in [0, 1]."""
    pair = []
    for name in ("kermany_0001.png", "kermany_0002.png"):
        image = folder / "cxr" / "images" / name
        for step in (LoadImage(image_only=True, ensure_channel_first=True), Resize((128, 128)), ScaleIntensity()):
            image = step(image)
        pair.append(image[:1])
    return pair


def drawn(sample: dict[str, Any]) -> tuple[tuple[slice, ...], float]:
    """The box of the only anomaly and its weight."""
    (params,) = json.loads(sample["params"])
    return tuple(slice(a, a + n) for a, n in zip(params["corner"], params["size"], strict=True)), params["weight"]


def boxes_of(method: RandAnomaly, image: Tensor, number: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Corners and sizes of many boxes as drawn, cut by the image."""
    rng = np.random.RandomState(0)
    boxes = [method.plan(rng, image, None, [image + 1]).describe()[0] for _ in range(number)]
    return np.array([box["corner"] for box in boxes]), np.array([box["size"] for box in boxes])
