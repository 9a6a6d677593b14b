# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Coarse noise over the whole object, which a denoising autoencoder learns to take away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ...functional.foreground import holds_signal
from ...functional.noise import coarse_field, coarse_noise
from ..checks import check_choice, check_positive, check_range
from .anomaly import RandAnomaly
from .dictionary import RandAnomalyd
from .placements import FixedPlacement
from .placing import PatchBatch
from .plan import Frame, Patch


class WholeForeground:
    """All of the foreground, or of the image where there is none."""

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        """Return the foreground, of the size of the image."""
        return np.ones(frame.shape, dtype=bool) if frame.foreground is None else frame.foreground


class CoarseNoise:
    """Add Gaussian noise of a coarse grid, enlarged to the image and shifted cyclically.

    Args:
        resolution: points of the grid along each axis, one number or one an axis; paper's default 16.
        std: standard deviation on the grid's points as a fraction of the value range; paper's default 0.2.
        per_channel: whether each channel gets its own noise (default), or all the same.
        as_image: whether the noise is mapped to the value range as if it were an image, and so shifted by its lower
            end; default False.
    """

    smallest = 1
    voxels = False

    def __init__(
        self,
        resolution: int | Sequence[int] = 16,
        std: float = 0.2,
        per_channel: bool = True,
        as_image: bool = False,
    ) -> None:
        sizes = tuple(resolution) if isinstance(resolution, Sequence) else (resolution,)
        if not sizes or not all(size == int(size) > 0 for size in sizes):
            raise ValueError(f"resolution must be 1 or more along every axis, got {resolution!r}")
        check_positive(std=std)
        self.resolution = resolution
        self.std = std
        self.per_channel = per_channel
        self.as_image = as_image

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the grid and its shift."""
        std = self.std * frame.data_range
        grid, shift = coarse_noise(rng, frame.shape, frame.channels, self.resolution, std, self.per_channel)
        offset = frame.value_range[0] if self.as_image else 0.0
        patch.parameters = {"grid": grid + np.float32(offset), "shift": shift}
        return patch

    def apply(self, batch: PatchBatch) -> Tensor:
        """Add the noise inside the masks."""
        shift = [patch.parameters["shift"] for patch in batch.patches]
        return batch.boxes + coarse_field(batch.numbers("grid"), batch.size, shift) * batch.masks


class RandCoarseNoise(RandAnomaly):
    """Noise of a denoising autoencoder: ``x + n``, n coarse and Gaussian, inside the object (2D, 3D).

    The noise has 16 points along each axis, is enlarged linearly with aligned corners, and is shifted cyclically, each
    image by itself. Between the points its standard deviation is lower than ``noise_std``. Nothing is clipped. The
    target of the training is ``clean``; ``label`` is 1 where there is noise.

    Args:
        noise_res: points of the noise along each axis, one number or one an axis; paper's default 16.
        noise_std: standard deviation on these points as a fraction of the value range, > 0; paper's default 0.2 for
            images in [0, 1]. Images in [-1, 1] get twice the noise, with mean 0.
        per_channel: whether each channel gets its own noise (default), or all the same.
        foreground: where noise goes: "signal" (default): where the intensities above the lower end of the value range
            add up, over the channels, to more than 0.01 of it; else see :class:`RandAnomaly`. One that is given with
            the image goes first.
        compat: None (default), or "upd" for what a published port does to images not in [0, 1]: it maps the noise to
            their value range as if it were an image. For images in [-1, 1] that doubles the noise, and shifts it by -1.
        kwargs: see :class:`RandAnomaly`; ``clip`` is None, and ``on_empty`` "skip".

    Raises:
        ValueError: on an argument outside its range.

    References:
        A. Kascenas, N. Pugeault, A. Q. O'Neil: "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain
        MRI", MIDL 2022; ``compat="upd"``: I. Lagogiannis, F. Meissen, G. Kaissis, D. Rueckert: "Unsupervised Pathology
        Detection: A Deep Dive Into the State of the Art", IEEE TMI 2023.
    """

    def __init__(
        self,
        noise_res: int | Sequence[int] = 16,
        noise_std: float = 0.2,
        per_channel: bool = True,
        foreground: Callable[[Tensor], Tensor] | str | None = "signal",
        compat: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("compat", compat, (None, "upd"))
        settings: dict[str, Any] = {"clip": None, "on_empty": "skip", **kwargs}
        if isinstance(foreground, str):
            check_choice("foreground", foreground, ("signal",))
            value_range = check_range("value_range", settings.get("value_range", (0.0, 1.0)))
            foreground = partial(above_minimum, value_range=value_range)
        corruptor = CoarseNoise(noise_res, noise_std, per_channel, as_image=compat == "upd")
        super().__init__(WholeForeground(), FixedPlacement(), corruptor, foreground=foreground, **settings)


def above_minimum(image: Tensor, value_range: Sequence[float] = (0.0, 1.0), threshold: float = 0.01) -> Tensor:
    """Mark where an image (C, *S) holds a signal: ``sum_c (x_c - low) > threshold (high - low)``, (1, *S), bool.

    Args:
        image: (C, *S).
        value_range: smallest and largest possible intensity, default (0, 1).
        threshold: as a fraction of the value range; paper's default 0.01.
    """
    return holds_signal(image[None], value_range, threshold)[0]


class RandCoarseNoised(RandAnomalyd):
    """Dictionary version of :class:`RandCoarseNoise`."""

    corruption = RandCoarseNoise


RandCoarseNoiseD = RandCoarseNoiseDict = RandCoarseNoised
