# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Denoising diffusion: which noise levels are visited, one step from a level to the next, and how much a level counts.

``alpha`` is the share of the image in the variance of a noisy image: ``x_t = sqrt(alpha_t) x + sqrt(1 - alpha_t) eps``,
the cumulated product of ``1 - beta`` (J. Ho, A. Jain, P. Abbeel: "Denoising Diffusion Probabilistic Models", NeurIPS
2020, Eq. 4).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SPACINGS = ("leading", "linspace", "trailing")
PREDICTIONS = ("epsilon", "velocity")


def diffusion_times(num_train: int = 1000, num_steps: int = 50, spacing: str = "leading", start: int = 0) -> list[int]:
    """Noise levels that sampling visits, from the noisiest to the least noisy.

    Args:
        num_train: number of levels T that the network was trained with, paper's default 1000.
        num_steps: number n of network evaluations, at most the number of levels; published default 50.
        spacing: ``"leading"``: ``i (T // n)`` (default, as published), which ends at level 0; ``"linspace"``: from
            T - 1 to 0; ``"trailing"``: ``T - i T / n - 1``, which begins at T - 1.
        start: number of levels that are used at all, counted from the clean image; 0 (default): all T.

    Raises:
        ValueError: when a number is outside its range or the spacing unknown.
    """
    levels = start or num_train
    if not 0 < levels <= num_train:
        raise ValueError(f"start must be in 0..{num_train}, got {start!r}")
    if not 0 < num_steps <= levels:
        raise ValueError(f"num_steps must be in 1..{levels}, the number of levels, got {num_steps!r}")
    if spacing == "leading":
        times: np.ndarray = np.arange(num_steps)[::-1] * (levels // num_steps)
    elif spacing == "linspace":
        times = np.round(np.linspace(0, levels - 1, num_steps))[::-1]
    elif spacing == "trailing":
        times = np.round(levels - np.arange(num_steps) * (levels / num_steps)) - 1
    else:
        raise ValueError(f"spacing must be one of {SPACINGS}, got {spacing!r}")
    return [int(time) for time in times]


def denoising_step(
    noisy: Tensor,
    predicted_noise: Tensor,
    alpha: Tensor,
    next_alpha: Tensor,
    noise: Tensor | None = None,
    eta: float = 1.0,
    clip: float | None = 1.0,
    recompute_noise: bool = True,
) -> Tensor:
    """Go from one noise level to another that is less noisy, however far away.

    With the clean image that the prediction stands for, ``x0 = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t)``, clipped, and
    the noise that it leaves, ``e = (x_t - sqrt(a_t) x0) / sqrt(1 - a_t)``, the next image is
    ``sqrt(a_s) x0 + sqrt(1 - a_s - sigma^2) e + sigma z`` with
    ``sigma = eta sqrt((1 - a_s) / (1 - a_t) (1 - a_t / a_s))``. For ``eta = 1`` this is the ancestral step of DDPM
    between any two levels, for 0 the deterministic one of DDIM.

    So the noise e is recomputed from the clipped image, and agrees with ``eps`` only where nothing was clipped. DDPM's
    own posterior does the same; DDIM as in the libraries diffusers and MONAI does not by default, but keeps ``eps`` and
    so takes an image and a noise that do not add up to ``x_t``: ``recompute_noise=False``.

    Args:
        noisy: image at the present level (B, C, *S).
        predicted_noise: noise that the network sees in it (B, C, *S).
        alpha: of the present level, below 1, a scalar.
        next_alpha: of the next level, a scalar, at least ``alpha``; 1 gives the clean image.
        noise: standard normal noise z, to be broadcast to the image; None: none is added (for ``eta = 0``).
        eta: share of the fresh noise, in [0, 1]; default 1.
        clip: largest absolute value of a clean image, default 1; None: not clipped.
        recompute_noise: whether e is what the clipped image leaves (default), else the predicted noise.

    Returns:
        image at the next level (B, C, *S).

    Reference:
        J. Song, C. Meng, S. Ermon: "Denoising Diffusion Implicit Models", ICLR 2021, Eqs. 12 and 16.
    """
    clean = (noisy - (1 - alpha).sqrt() * predicted_noise) / alpha.sqrt()
    if clip is not None:
        clean = clean.clamp(-clip, clip)
    left = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt() if recompute_noise else predicted_noise
    variance = eta**2 * (1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)
    result = next_alpha.sqrt() * clean + (1 - next_alpha - variance).clamp(min=0).sqrt() * left
    return result if noise is None else result + variance.clamp(min=0).sqrt() * noise


def noise_of_velocity(velocity: Tensor, noisy: Tensor, alpha: Tensor) -> Tensor:
    """Noise that a predicted velocity stands for, ``sqrt(a) v + sqrt(1 - a) x_t``, (B, C, *S).

    Args:
        velocity: ``sqrt(a) eps - sqrt(1 - a) x`` (B, C, *S).
        noisy: image at the present level (B, C, *S).
        alpha: of the present level, a scalar.
    """
    return alpha.sqrt() * velocity + (1 - alpha).sqrt() * noisy


def min_snr_weight(alphas: Tensor, gamma: float, velocity: bool = False) -> Tensor:
    """Weight of each noise level in the loss of predicted noise, ``min(SNR, gamma) / SNR`` with ``SNR = a / (1 - a)``.

    Args:
        alphas: any shape, in (0, 1).
        gamma: signal-to-noise ratio above which levels count less, above 0; 1 in the code of the image-conditioned
            diffusion paper.
        velocity: whether it is the loss of predicted velocity, whose weight is ``min(SNR, gamma) / (SNR + 1)``.

    Reference:
        T. Hang, S. Gu, C. Li, J. Bao, D. Chen, H. Hu, X. Geng, B. Guo: "Efficient Diffusion Training via Min-SNR
        Weighting Strategy", ICCV 2023.
    """
    if gamma <= 0:
        raise ValueError(f"gamma must be above 0, got {gamma!r}")
    ratio = alphas / (1 - alphas)
    return ratio.clamp(max=gamma) / (ratio + velocity)


def shifted_by_content(noise: Tensor, images: Tensor) -> Tensor:
    """Give every image noise of its own: the same values for all, rotated by a number that the image's values make.

    So the noise of an image depends on no other image, nor on its place in a batch, and it is the same on all devices
    and in an exported network. Rotating independent values gives independent values.

    Args:
        noise: (N, M), M values for each of N draws.
        images: (B, C, *S) with ``C * prod(S) = M`` values each.

    Returns:
        (N, B, C, *S) on the images' device.
    """
    flat = (images.flatten(1).double() * 4096).round().long()  # integers, whose sums are exact on every device
    place = torch.arange(flat.shape[1], device=images.device)
    weight = (place * 2654435761 + 12345) % 2147483647
    # first by a prime: gray values in steps of a power of two would all rotate images of such a size alike
    offset = (flat * weight).sum(1, keepdim=True) % 2147483647 % flat.shape[1]
    index = (place + offset) % flat.shape[1]
    return noise.to(images)[:, index].reshape(-1, *images.shape)
