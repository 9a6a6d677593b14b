# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scipy.ndimage import laplace
from torch import Tensor

from ...transforms.labels import PrepareLabel
from ...transforms.loading import EIGHT_BIT, LoadImageChecked
from ...utils import Keys

THUMBNAIL_SIZES = {2: 64, 3: 32}
_POOLS = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_MASK_KEYS = (Keys.LABEL, Keys.FOREGROUND)


@dataclass(frozen=True)
class ImageDigest:
    """What the audit keeps of one decoded image.

    Args:
        shape: (C, *S) of the decoded image.
        thumbnail: mean over channels, area-averaged to 64x64 (2D) or 32x32x32 (3D), float32, in the file's units.
        mean: mean intensity, in the file's units.
        contrast: standard deviation of the mean over channels.
        sharpness: variance of the Laplacian of the mean over channels.
        constant: whether every channel has one value only.
        eight_bit: whether the file stores 8 bits, so that the image is scaled from 0..255 and not from its extremes.
        pixel_hash: hash of shape and values; equal for a copy of the file, also in another lossless format.
    """

    shape: tuple[int, ...]
    thumbnail: Tensor
    mean: float
    contrast: float
    sharpness: float
    constant: bool
    eight_bit: bool
    pixel_hash: str


@dataclass(frozen=True)
class FileProblem:
    """A file that cannot be used: the kind of problem, the file, and a text that ends in the remedy after a colon."""

    code: str
    file: str
    text: str


class MaskKind(Enum):
    """What is odd about a mask: it is the image, marks every pixel, or has more than two values."""

    IMAGE = "image"
    FULL = "full"
    SOFT = "soft"


@dataclass
class ItemDigest:
    """What the audit keeps of one item of a datalist.

    Args:
        image: digest of its image, None where that cannot be used.
        marked: for each mask it has (``label``, ``foreground``), the number of pixels above 0.
        mask_kinds: for each mask that is not plain, what is odd about it.
        problems: what is wrong with its files.
    """

    image: ImageDigest | None = None
    marked: dict[str, int] = field(default_factory=dict)
    mask_kinds: dict[str, set[MaskKind]] = field(default_factory=dict)
    problems: list[FileProblem] = field(default_factory=list)


def digest_items(
    items: Sequence[Mapping[str, Any]], num_workers: int, spatial_dims: int | None = None
) -> Iterator[ItemDigest]:
    """Decode the image and masks of each item once, in threads, and yield the digests in order.

    Args:
        items: with absolute paths, as :func:`~monai_anomaly.data.load_datalist` gives them.
        num_workers: number of threads; 0 counts as 1.
        spatial_dims: see :class:`~monai_anomaly.transforms.LoadImageChecked`.
    """
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        yield from pool.map(partial(digest_item, spatial_dims=spatial_dims), items)


def with_shared_thumbnails(digests: Iterable[ItemDigest], number: int) -> Iterator[ItemDigest]:
    """Yield the digests with their thumbnails as rows of one tensor, which others can use without copying it.

    Args:
        digests: of the images, whose thumbnails are meant to be of one shape; those of another shape stay as they are.
        number: how many there are.
    """
    rows: Tensor | None = None
    for row, digest in enumerate(digests):
        if digest.image is not None:
            thumbnail = digest.image.thumbnail
            if rows is None:
                rows = torch.empty(number, *thumbnail.shape)
            if thumbnail.shape == rows.shape[1:]:
                rows[row] = thumbnail
                digest.image = replace(digest.image, thumbnail=rows[row])
        yield digest


def digest_item(item: Mapping[str, Any], spatial_dims: int | None = None) -> ItemDigest:
    """Decode image and masks of one item as training will, and keep what the audit needs."""
    digest = ItemDigest()
    path = item[Keys.IMAGE]
    try:
        image = LoadImageChecked(spatial_dims)(path)
    except ValueError as error:
        digest.problems.append(FileProblem(_code(path, error, "invalid_image"), path, str(error)))
        return digest
    if image.ndim - 1 not in THUMBNAIL_SIZES:
        text = f"image {path} has shape {tuple(image.shape)}: give images with two or three spatial axes"
        digest.problems.append(FileProblem("invalid_image", path, text))
        return digest
    digest.image = digest_image(image)
    for key in _MASK_KEYS:
        if key not in item:
            continue
        try:
            values = PrepareLabel().mask_values(image, item[key])
            digest.marked[key] = int((values > 0).sum())
            if kinds := _mask_kinds(image, values, key):
                digest.mask_kinds[key] = kinds
        except ValueError as error:
            digest.problems.append(FileProblem(_code(item[key], error, "bad_mask"), item[key], str(error)))
    return digest


def _mask_kinds(image: MetaTensor, values: Tensor, key: str) -> set[MaskKind]:
    pixels = image.as_tensor()
    distinct = len(torch.unique(values))
    # a picture of two values may well be equal to its own mask
    if distinct > 2 and bool((pixels == values).all()):
        return {MaskKind.IMAGE}
    full = key == Keys.LABEL and bool((values > 0).all())
    return {kind for kind, found in ((MaskKind.FULL, full), (MaskKind.SOFT, distinct > 2)) if found}


def digest_image(loaded: MetaTensor) -> ImageDigest:
    """Return the digest of an image (C, *S) of two or three spatial axes, float32, as ``LoadImageChecked`` gives it."""
    image = loaded.as_tensor()
    values = np.ascontiguousarray(image.numpy())
    gray = image.mean(0)
    flat = image.flatten(1)
    return ImageDigest(
        shape=tuple(image.shape),
        thumbnail=_POOLS[gray.ndim](gray[None, None], THUMBNAIL_SIZES[gray.ndim])[0, 0].contiguous(),
        mean=float(values.mean(dtype=np.float64)),
        contrast=float(gray.numpy().std(dtype=np.float64)),
        sharpness=float(laplace(gray.numpy()).var(dtype=np.float64)),
        constant=bool(torch.equal(flat.amax(1), flat.amin(1))),
        eight_bit=loaded.meta[EIGHT_BIT],
        pixel_hash=hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest(),
    )


def _code(path: str, error: ValueError, refused: str) -> str:
    if not os.path.exists(path):
        return "missing_file"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "empty_file"
    # the loader chains the reader's own exception; what is refused by our own checks has no cause
    return "unreadable_file" if error.__cause__ is not None else refused
