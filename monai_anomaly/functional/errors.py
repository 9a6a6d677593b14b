# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Per-pixel errors between a prediction and an image: a loss takes their mean, an inferer shows them as a map.

All take (B, C, *S) tensors and return (B, C, *S), un-reduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor


def l1_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute difference ``|prediction - target|``, (B, C, *S)."""
    return (prediction - target).abs()


def l2_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared difference ``(prediction - target)^2``, (B, C, *S)."""
    return (prediction - target).square()


def variance_weighted_error(prediction: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
    """Squared difference over the predicted variance, ``exp(-s) (x - mu)^2``, (B, C, *S).

    Args:
        prediction: predicted mean (B, C, *S).
        log_variance: predicted ``s = log sigma^2`` (B, C, *S).
        target: image (B, C, *S).

    Reference:
        Y. Mao, F.-F. Xue, R. Wang, J. Zhang, W.-S. Zheng, H. Liu: "Abnormality Detection in Chest X-ray Images Using
        Uncertainty Prediction Autoencoders", MICCAI 2020.
    """
    return torch.exp(-log_variance) * (target - prediction).square()


def ssim_error(
    prediction: Tensor,
    target: Tensor,
    value_range: Sequence[float] = (-1.0, 1.0),
    win_size: int = 11,
    sigma: float = 1.5,
    compat: str | None = None,
) -> Tensor:
    """One minus the structural similarity around each pixel, (B, C, *S), in [0, 2].

    The images are brought to [0, 1] first, since the luminance term compares means as a ratio and supposes that they
    are not negative: one pair of images gives one map, on whatever range it is stored. They are extended by
    reflection, so that the map has their size and every pixel its own window.

    Args:
        prediction: prediction (B, C, *S).
        target: image (B, C, *S), 2D or 3D.
        value_range: smallest and largest possible intensity; default (-1, 1).
        win_size: width of the Gaussian window in pixels, odd, at most the image size.
        sigma: standard deviation of the window in pixels.
        compat: ``"medianomaly"`` clamps both images to ``value_range``, leaves the border out and stretches the smaller
            map over the image, as the MedIAnomaly benchmark does (Cai et al., 2024); ``"upd"`` takes the constants of
            images in [0, 255], zeros beyond the border and no more than 1, as the UPD benchmark and the
            image-conditioned diffusion paper do for MRI in [0, 1]: in effect the square of the blurred difference.
            (Their retinas stay in [-1, 1], which multiplies that square by four.)

    Raises:
        ValueError: when ``compat`` is unknown, the window is larger than the image, or the range is no range.

    Reference:
        Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli: "Image Quality Assessment", IEEE TIP 2004. As a reconstruction
        error: P. Bergmann, S. Löwe, M. Fauser, D. Sattlegger, C. Steger, VISAPP 2019.

    Example:
        >>> import torch
        >>> from monai_anomaly.functional import ssim_error
        >>> image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> float(ssim_error(image, image).abs().max()) < 1e-5
        True
    """
    if compat not in (None, "medianomaly", "upd"):
        raise ValueError(f'compat must be None, "medianomaly" or "upd", got {compat!r}.')
    if len(value_range) != 2 or not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ValueError(f"value_range must be two finite numbers, low < high, got {value_range!r}.")
    size = prediction.shape[2:]
    if win_size % 2 == 0 or win_size > min(size):
        raise ValueError(f"win_size must be odd and at most the image size {tuple(size)}, got {win_size}.")
    low, high = value_range
    if compat == "medianomaly":
        prediction, target = prediction.clamp(low, high), target.clamp(low, high)
    prediction, target = (prediction - low) / (high - low), (target - low) / (high - low)
    if compat != "medianomaly":
        border, mode = [win_size // 2] * (2 * len(size)), "reflect" if compat is None else "constant"
        prediction, target = (F.pad(image, border, mode=mode) for image in (prediction, target))
    window, data_range = ((win_size,) * len(size), (sigma,) * len(size)), 255.0 if compat == "upd" else 1.0
    error = 1 - compute_ssim_and_cs(prediction, target, len(size), *window, data_range=data_range)[0]
    if compat is None:
        return error
    if compat == "upd":
        return error.clamp(0, 1)
    return enlarged(error, size)


def enlarged(values: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate a map (B, C, *s) linearly to a size, in 2D or 3D."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(values, size=tuple(size), mode=mode, align_corners=False)


def feature_error(prediction: Sequence[Tensor], target: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """One minus the cosine similarity of features at each place, averaged over several layers, (B, 1, *S), in [0, 2].

    Args:
        prediction: features of the prediction, one tensor a layer, (B, C, ...), each of its own size.
        target: features of the image, of the same shapes.
        size: size S of the map, to which the coarser ones are interpolated linearly.
    """
    maps = [
        enlarged(1 - F.cosine_similarity(a, b, dim=1)[:, None], size) for a, b in zip(prediction, target, strict=True)
    ]
    return torch.stack(maps).mean(0)
