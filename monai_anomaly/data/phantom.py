# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..utils import Keys, check_output
from .datalist import SECTIONS, TESTING, TRAINING, UNLABELED, VALIDATION, Item, PathLike, write_datalist

# oblique, anisotropic and left-handed, so that whoever loses the geometry is noticed
PHANTOM_AFFINE = np.array(
    [
        [-1.2 * math.cos(0.2), 1.5 * math.sin(0.2), 0.0, 40.0],
        [1.2 * math.sin(0.2), 1.5 * math.cos(0.2), 0.0, -25.0],
        [0.0, 0.0, 2.0, 10.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
_EDGE = 0.04  # width of a soft edge, in units of half the image
_NOISE = 0.015
_CENTERS = ((-0.3, -0.2, 0.0), (0.3, -0.2, 0.1), (0.0, 0.35, -0.1), (0.1, 0.0, 0.2))


def make_phantom(
    folder: PathLike,
    spatial_dims: int = 2,
    size: int | Sequence[int] = 64,
    num_training: int = 16,
    num_unlabeled: int = 8,
    num_validation: int = 8,
    num_testing: int = 12,
    seed: int = 0,
) -> Path:
    """Generate a data set with known lesions: a body with four organs, shading and noise; anomalous ones with lesions.

    Organs vary in place, shape and brightness. An anomalous image has one to three ellipsoid lesions inside the body,
    brighter or darker by 0.25 to 0.45 of the range, and a pixel mask. In ``unlabeled``, ``validation`` and ``testing``
    every second image is anomalous. The same arguments give the same files.

    Args:
        folder: folder to write ``images/``, ``masks/`` and ``datalist.json`` to.
        spatial_dims: 2 (8-bit gray PNG) or 3 (NIfTI, int16 in [0, 1000], with an oblique anisotropic affine).
        size: pixels of each axis (x, y[, z]), at least 16; one number for all.
        num_training: healthy images in ``training``.
        num_unlabeled: images in ``unlabeled``.
        num_validation: images in ``validation``.
        num_testing: images in ``testing``.
        seed: seed of everything drawn.

    Returns:
        Path of the datalist.

    Raises:
        ValueError: for other dimensions, a size below 16 or negative numbers.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
    shape = (size,) * spatial_dims if isinstance(size, int) else tuple(size)
    if len(shape) != spatial_dims or min(shape) < 16:
        raise ValueError(f"size must be one or {spatial_dims} numbers of at least 16, got {size!r}")
    counts = dict(zip(SECTIONS, (num_training, num_unlabeled, num_validation, num_testing), strict=True))
    if min(counts.values()) < 0:
        raise ValueError(f"numbers of images must be 0 or more, got {counts}")
    sections: dict[str, list[Item]] = {}
    for part, (section, count) in enumerate(counts.items()):
        sections[section] = [
            _make_item(Path(folder), section, i, shape, np.random.default_rng([seed, part, i])) for i in range(count)
        ]
    return write_datalist(Path(folder) / "datalist.json", sections, name=f"phantom_{spatial_dims}d")


def _make_item(folder: Path, section: str, index: int, shape: tuple[int, ...], draw: np.random.Generator) -> Item:
    target = index % 2 if section != TRAINING else 0
    image = _healthy(shape, draw)
    mask = np.zeros(shape, dtype=bool)
    if target:
        image, mask = _with_lesions(image, draw)
    image = np.clip(image + _NOISE * draw.standard_normal(shape), 0, 1)
    suffix = ".png" if len(shape) == 2 else ".nii.gz"
    item: Item = {Keys.IMAGE: f"images/{section}_{index:03d}{suffix}", Keys.PATIENT: f"{section}_{index:03d}"}
    _save(folder / item[Keys.IMAGE], image, 255 if len(shape) == 2 else 1000)
    if section in (VALIDATION, TESTING, TRAINING):
        item[Keys.TARGET] = target
    if target and section != UNLABELED:
        item[Keys.LABEL] = f"masks/{section}_{index:03d}{suffix}"
        _save(folder / item[Keys.LABEL], mask.astype(float), 255 if len(shape) == 2 else 1)
    return item


def _save(path: Path, image: np.ndarray, scale: int) -> None:
    check_output(path).parent.mkdir(parents=True, exist_ok=True)
    values = np.rint(image * scale)
    if image.ndim == 2:
        Image.fromarray(values.astype(np.uint8).T).save(path)  # a picture's rows are y
        return
    nib.save(nib.Nifti1Image(values.astype(np.int16), PHANTOM_AFFINE), path)


def _grid(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return the coordinates of the pixel centers along each axis, in [-1, 1], ready to broadcast."""
    return list(np.meshgrid(*[(np.arange(n) + 0.5) * 2 / n - 1 for n in shape], indexing="ij", sparse=True))


def _radius(grid: Sequence[np.ndarray], center: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the distance from the center in units of the ellipsoid's half axes: below 1 inside."""
    squares = [((g - c) / a) ** 2 for g, c, a in zip(grid, center, axes, strict=True)]
    return np.sqrt(np.asarray(sum(squares)))


def _soft(radius: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return 1 inside, 0 outside, with a logistic edge of the same width whatever the ellipsoid's size."""
    return 1 / (1 + np.exp(np.clip((radius - 1) * axes.min() / _EDGE * 2, -50, 50)))


def _healthy(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    grid, dims = _grid(shape), len(shape)
    axes = draw.uniform(0.78, 0.9, dims)
    body = _soft(_radius(grid, np.zeros(dims), axes), axes)
    image: np.ndarray = 0.45 * body
    for center, level in zip(_CENTERS, (0.2, 0.18, -0.2, 0.12), strict=True):
        place = np.asarray(center[:dims]) + draw.normal(0, 0.03, dims)
        organ = draw.uniform(0.12, 0.24, dims)
        image = image + (level + draw.normal(0, 0.02)) * body * _soft(_radius(grid, place, organ), organ)
    shading = 1 + np.asarray(sum(draw.uniform(-0.06, 0.06) * g for g in grid))
    return image * shading


def _with_lesions(image: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    grid, dims = _grid(image.shape), image.ndim
    mask = np.zeros(image.shape, dtype=bool)
    for _ in range(int(draw.integers(1, 4))):
        direction = draw.standard_normal(dims)
        center = direction / np.linalg.norm(direction) * draw.uniform(0, 0.5)
        mask |= _radius(grid, center, draw.uniform(0.1, 0.22, dims)) < 1
    change = draw.uniform(0.25, 0.45) * draw.choice([-1.0, 1.0])
    return image + change * gaussian_filter(mask.astype(float), 0.5), mask
