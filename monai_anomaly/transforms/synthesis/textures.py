# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Textures of the size of an image: from files, other images, or the image itself, and changes of their look."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage
from torch import Tensor

from ...utils import check_user_file
from ..checks import check_choice
from .plan import Frame, Patch
from .sources import match_channels

SUFFIXES = (".png", ".jpg", ".jpeg")
GRID = 8  # patches along each axis of an image that is its own texture


class Texture:
    """Draws a texture of the size of the image, and changes its look.

    Args:
        texture: "self": shuffled patches of the image; "source": another image, see :class:`RandAnomaly`.
        texture_dir: folder of PNG and JPEG files, searched with its subfolders; goes before ``texture``.
        augmentations: how many of the changes are made, each another one; paper's default 3.
    """

    def __init__(self, texture: str = "self", texture_dir: str | Path | None = None, augmentations: int = 3) -> None:
        check_choice("texture", texture, ("self", "source"))
        if not 0 <= augmentations <= len(AUGMENTATIONS):
            raise ValueError(f"augmentations must be in 0..{len(AUGMENTATIONS)}, got {augmentations!r}")
        self.texture = texture
        self.files = [] if texture_dir is None else texture_files(texture_dir)
        self.augmentations = augmentations

    def __call__(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the texture and its changes."""
        texture, index = self._draw(rng, frame)
        known = AUGMENTATIONS + COLOR_AUGMENTATIONS * (frame.channels == 3)
        chosen = [known[i] for i in rng.choice(len(known), self.augmentations, replace=False)]
        for change in chosen:
            texture = change(rng, texture)
        low = frame.value_range[0]
        patch.source = torch.from_numpy(texture.astype(np.float32) * (frame.data_range / 255) + low)
        patch.parameters = {"source": index, "augmentations": [change.__name__.strip("_") for change in chosen]}
        return patch

    def _draw(self, rng: np.random.RandomState, frame: Frame) -> tuple[np.ndarray, int]:
        """Draw a texture (C, H, W), uint8, and its index: -1 for the image itself."""
        if self.files:
            index = int(rng.randint(len(self.files)))
            read = read_texture(self.files[index], frame.shape, frame.channels == 3)
            return np.repeat(read, frame.channels // len(read), axis=0), index
        if self.texture == "self":
            return shuffle_patches(rng, _to_bytes(frame.image, frame), GRID), -1
        source, _, index = frame.draw_source(rng)
        source = match_channels(rng, source, frame.channels)
        if tuple(source.shape[1:]) != frame.shape:
            if source.ndim != 3:
                raise ValueError(f"source {index} is {source.ndim - 1}D, but the image 2D")
            source = F.interpolate(source[None], frame.shape, mode="bilinear", antialias=True)[0]
        return _to_bytes(source, frame), index


def texture_files(folder: str | Path) -> list[str]:
    """Paths of the PNG and JPEG files of a folder and its subfolders, sorted; a ValueError where there is none."""
    files = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"texture_dir {str(folder)!r} holds no texture: put PNG or JPEG files there")
    return files


@lru_cache(maxsize=256)
def read_texture(path: str, shape: tuple[int, int], color: bool) -> np.ndarray:
    """Read a texture and resize it to (H, W).

    Args:
        path: of the file.
        shape: size of the image.
        color: whether to read RGB, else grey.

    Returns:
        (3, H, W) or (1, H, W), uint8, not to be written to.

    Raises:
        ValueError: when the file is no image.
    """
    check_user_file(path, "texture", "repair or remove it")
    try:
        with Image.open(path) as file:
            picture = _to_8_bits(file) if file.mode.startswith(("I", "F")) else file
            picture = picture.convert("RGB" if color else "L").resize(shape[::-1], Image.Resampling.BILINEAR)
    except (OSError, ValueError) as error:
        raise ValueError(f"texture {path!r} cannot be read, repair or remove it: {error}") from error
    texture = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1).copy()
    texture.flags.writeable = False
    return texture


def _to_8_bits(file: Image.Image) -> Image.Image:
    """Scale a picture of more than 8 bits, which a conversion would cut off."""
    values = np.asarray(file, dtype=np.float64)
    scaled = (values - values.min()) * (255 / max(np.ptp(values), 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8))


def shuffle_patches(rng: np.random.RandomState, image: np.ndarray, grid: int) -> np.ndarray:
    """Cut an image (C, *S) into ``grid`` patches along each axis and put them in another order.

    Where an axis cannot be divided evenly, the image is enlarged by its mirror image before, and cut off afterwards.
    """
    shape = image.shape[1:]
    counts = [min(grid, length) for length in shape]
    sizes = [-(-length // count) for length, count in zip(shape, counts, strict=True)]
    missing = [(0, n * size - length) for n, size, length in zip(counts, sizes, shape, strict=True)]
    padded = np.pad(image, [(0, 0), *missing], mode="symmetric")
    blocks = padded.reshape(len(image), *[n for pair in zip(counts, sizes, strict=True) for n in pair])
    dims = len(shape)
    order = [*range(1, 2 * dims, 2), 0, *range(2, 2 * dims + 1, 2)]
    patches = blocks.transpose(order)
    flat = patches.reshape(-1, *patches.shape[dims:])
    shuffled = flat[rng.permutation(len(flat))].reshape(patches.shape)
    whole = shuffled.transpose(np.argsort(order)).reshape(padded.shape)
    return whole[(slice(None), *map(slice, shape))]


def _to_bytes(image: Tensor, frame: Frame) -> np.ndarray:
    """Map the value range to 0..255."""
    unit = (torch.as_tensor(image).detach().cpu() - frame.value_range[0]) / frame.data_range
    return np.asarray((unit.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def _clipped(texture: np.ndarray) -> np.ndarray:
    return np.clip(np.round(texture), 0, 255).astype(np.uint8)


def _each(change: Callable[[Image.Image], Image.Image], texture: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(channel))) for channel in texture])


def _gamma(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    return _clipped(255 * (texture / 255) ** rng.uniform(0.5, 2, (len(texture), 1, 1)))


def _brightness(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    return _clipped(texture * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))


def _sharpness(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    factor = rng.uniform(0, 2)
    return _each(lambda channel: ImageEnhance.Sharpness(channel).enhance(factor), texture)


def _solarization(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    threshold, happens = rng.randint(32, 129), rng.rand() < 0.5
    return np.where((texture >= threshold) & happens, 255 - texture, texture)


def _posterization(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    bits = rng.randint(1, 9)
    return np.asarray(texture & np.uint8(256 - 2 ** (8 - bits)))


def _inversion(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    return np.asarray(255 - texture)


def _contrast(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    cutoff = rng.randint(0, 21)  # percent at either end
    return _each(lambda channel: ImageOps.autocontrast(channel, cutoff), texture)


def _equalization(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    return _each(ImageOps.equalize, texture)


def _rotation(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    turned = ndimage.rotate(
        texture.astype(np.float32), rng.uniform(-45, 45), (1, 2), reshape=False, order=1, mode="mirror"
    )
    return _clipped(turned)


def _hue_and_saturation(rng: np.random.RandomState, texture: np.ndarray) -> np.ndarray:
    shifts = rng.randint(-50, 51, 2)
    picture = Image.merge("RGB", [Image.fromarray(channel) for channel in texture])
    hue, saturation, value = (np.asarray(band).astype(int) for band in picture.convert("HSV").split())
    changed = [(hue + shifts[0]) % 256, np.clip(saturation + shifts[1], 0, 255), value]
    rgb = Image.merge("HSV", [Image.fromarray(band.astype(np.uint8)) for band in changed]).convert("RGB")
    return np.asarray(rgb).transpose(2, 0, 1)


Change = Callable[[np.random.RandomState, np.ndarray], np.ndarray]
AUGMENTATIONS: tuple[Change, ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _solarization,
    _posterization,
    _inversion,
    _contrast,
    _equalization,
    _rotation,
)
COLOR_AUGMENTATIONS: tuple[Change, ...] = (_hue_and_saturation,)
