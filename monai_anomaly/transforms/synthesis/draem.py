# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""DRAEM's anomalies: a foreign texture in the spots of Perlin noise.

Reference:
    V. Zavrtanik, M. Kristan, D. Skocaj: "DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface
    Anomaly Detection", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ...functional.noise import gradient_noise
from ..checks import check_choice, check_range
from .anomaly import RandAnomaly
from .corruptors import AlphaBlend
from .dictionary import RandAnomalyd
from .placements import FixedPlacement
from .plan import Frame, Patch, Sources
from .textures import Texture


class PerlinMask:
    """Where rotated Perlin noise exceeds a threshold, of the size of the image; may be empty.

    Args:
        scales: smallest and largest k of the 2^k lattice intervals along an axis, drawn for each axis; paper's default
            (0, 5). No axis gets more intervals than half its pixels: at every pixel noise would be zero.
        threshold: in [0, 1); paper's default 0.5 for noise in [-1, 1].
        max_angle: the noise is rotated by up to this angle in radians, either way; paper's default pi/2.
    """

    def __init__(self, scales: Sequence[int] = (0, 5), threshold: float = 0.5, max_angle: float = np.pi / 2) -> None:
        low, high = check_range("scales", scales, 0, 30)
        if not (low.is_integer() and high.is_integer()):
            raise ValueError(f"scales must be two whole numbers, got {scales!r}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold!r}")
        if max_angle < 0:
            raise ValueError(f"max_angle must be 0 or more, got {max_angle!r}")
        self.scales = (int(low), int(high))
        self.threshold = threshold
        self.max_angle = max_angle

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        """Draw a mask, inside the foreground if there is one."""
        low, high = self.scales
        finest = np.maximum(np.log2(np.maximum(frame.shape, 2)).astype(int) - 1, 0)
        powers = [rng.randint(min(low, most), min(high, most) + 1) for most in finest]
        noise = gradient_noise(rng, frame.shape, [2.0**power for power in powers]) * np.sqrt(2)
        angle = np.rad2deg(rng.uniform(-self.max_angle, self.max_angle))
        mask = ndimage.rotate(noise, angle, reshape=False, order=1) > self.threshold
        return mask if frame.foreground is None else mask & frame.foreground


class TextureBlend(AlphaBlend):
    """Cover the image by a texture with some opacity: ``beta x + (1 - beta) A``.

    Args:
        beta: smallest and largest share of the image itself; published default (0, 0.8), in the paper (0.1, 1).
        texture: draws the texture.
    """

    def __init__(self, beta: Sequence[float], texture: Texture) -> None:
        low, high = check_range("beta", beta, 0, 1)
        super().__init__((1 - high, 1 - low))
        self.texture = texture
        self.foreign = texture.texture == "source" and not texture.files

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the opacity and the texture."""
        patch.weight = float(rng.uniform(*self.alpha))
        return self.texture(rng, patch, frame)


class RandPerlinTexture(RandAnomaly):
    """A texture A in the spots M of Perlin noise: ``I (1 - M) + (1 - beta) A M + beta I M``, beta in [0, 0.8] (2D).

    Half of the images stay clean, and some of the others, too: about one noise in twenty nowhere exceeds its threshold
    and leaves ``target`` 0. The published routine also rotates 30 % of the clean images; put ``RandRotated`` before
    this transform where that suits the anatomy.

    Args:
        texture: what the texture is made of: "self" (default): shuffled patches of the image itself, or another image
            if the transform has a ``source``; "source": always another image, from ``source``, the call, or the rest of
            the batch.
        texture_dir: folder with textures, PNG or JPEG, searched with its subfolders; goes before ``texture``. They are
            resized to the image, and read in color for images of three channels, in grey for others.
        augmentations: how many changes of a texture's look are made: gamma, brightness, sharpness, solarization,
            posterization, inversion, contrast, equalization, rotation, and for three channels hue and saturation.
            Paper's default 3.
        beta: smallest and largest share of the image itself in [0, 1]; published default (0, 0.8), in the paper
            (0.1, 1).
        scales: smallest and largest k of the 2^k lattice intervals of the noise along an axis; paper's default (0, 5).
        threshold: of the noise, in [0, 1); paper's default 0.5.
        max_angle: largest rotation of the noise in radians, paper's default pi/2.
        source: see :class:`RandAnomaly`.
        kwargs: see :class:`RandAnomaly`; ``prob`` is 0.5, ``clip`` the value range, and ``max_attempts`` 1: an empty
            mask is not drawn again.

    Raises:
        ValueError: on an argument outside its range, and when the folder holds no texture or one that cannot be read.
    """

    dims = (2,)

    def __init__(
        self,
        texture: str = "self",
        texture_dir: str | Path | None = None,
        augmentations: int = 3,
        beta: Sequence[float] = (0.0, 0.8),
        scales: Sequence[int] = (0, 5),
        threshold: float = 0.5,
        max_angle: float = np.pi / 2,
        source: Sources | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("texture", texture, ("self", "source"))
        drawn = Texture("self" if source is None and texture == "self" else "source", texture_dir, augmentations)
        # a texture lies in the value range; the range of one image would cut it off
        clip = kwargs.get("value_range", (0.0, 1.0))
        settings: dict[str, Any] = {"prob": 0.5, "max_attempts": 1, "clip": clip, **kwargs}
        mask = PerlinMask(scales, threshold, max_angle)
        super().__init__(mask, FixedPlacement(), TextureBlend(beta, drawn), source=source, **settings)


class RandPerlinTextured(RandAnomalyd):
    """Dictionary version of :class:`RandPerlinTexture`."""

    corruption = RandPerlinTexture


RandPerlinTextureD = RandPerlinTextureDict = RandPerlinTextured
