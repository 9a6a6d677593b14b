# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_anomaly.functional import direction_error, feature_ssim_error, value_error


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features about 1 wide, and what a network makes of them."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.randn(shape, generator=draw, dtype=torch.float64)
    prediction = 0.7 * target + 0.5 * torch.randn(shape, generator=draw, dtype=torch.float64)
    return prediction.requires_grad_(), target


def slow_error(prediction: Tensor, target: Tensor, size: int, sigma: float, compat: str | None) -> Tensor:
    """1 - SSIM by Wang et al. 2004, Eq. 13, one window of one channel at a time."""
    axes, half = target.ndim - 2, size // 2
    if compat is None:  # [-4, 4] becomes [0, 1], and the border is mirrored
        prediction, target = ((features + 4) / 8 for features in (prediction, target))
    mode = "reflect" if compat is None else "constant"
    a, b = (F.pad(features, [half] * (2 * axes), mode=mode) for features in (prediction, target))
    line = torch.tensor([math.exp(-((i - half) ** 2) / (2 * sigma**2)) for i in range(size)], dtype=torch.float64)
    window = line / line.sum()
    for _ in range(axes - 1):
        window = window[..., None] * line / line.sum()
    values = []
    for place in np.ndindex(*target.shape):
        part = (*place[:2], *(slice(start, start + size) for start in place[2:]))
        x, y = a[part], b[part]
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        cov = (window * (x - mx) * (y - my)).sum()
        similarity = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
        values.append(1 - similarity / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)))
    return torch.stack(values).reshape(target.shape)


@pytest.mark.parametrize("compat", [None, "upd"])
@pytest.mark.parametrize(("shape", "size"), [((2, 3, 6, 7), 5), ((1, 2, 4, 3, 4), 3)])
def test_similarity_window_by_window(shape: tuple[int, ...], size: int, compat: str | None) -> None:
    prediction, target = pair(*shape)
    expected = slow_error(prediction, target, size, 1.5, compat)
    error = feature_ssim_error(prediction, target, win_size=size, compat=compat)
    assert error.shape == shape
    torch.testing.assert_close(error.double(), expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(error.mean(), prediction)
    (wanted,) = torch.autograd.grad(expected.mean(), prediction)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-6)


def test_the_published_constants_take_features_for_images() -> None:
    prediction, target = (features.detach() for features in pair(1, 2, 8, 8))
    default, published = (feature_ssim_error(prediction, target, compat=compat) for compat in (None, "upd"))
    assert default.max() <= 1.5 and published.max() > 1.5  # a mean of the other sign counts against the similarity
    shifted = feature_ssim_error(prediction + 1, target + 1, compat="upd")
    assert (shifted - published).abs().max() > 0.5


def test_wrong_similarities() -> None:
    features = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="compat must be None or 'upd', got 'fae'"):
        feature_ssim_error(features, features, compat="fae")
    with pytest.raises(ValueError, match="win_size must be odd and at most"):
        feature_ssim_error(features, features)


def layers() -> tuple[list[Tensor], list[Tensor]]:
    made, wanted = zip(*(pair(2, c, *size, seed=c) for c, size in ((3, (4, 5)), (2, (2, 2)))), strict=True)
    return list(made), list(wanted)


@pytest.mark.parametrize("whole", [False, True])
def test_directions_vector_by_vector(whole: bool) -> None:
    made, wanted = layers()
    error = direction_error(made, wanted, whole)
    assert error.shape == (2, 2)
    for layer, (a, b) in enumerate(zip(made, wanted, strict=True)):
        a, b = a.detach().numpy(), b.numpy()
        for image in range(2):
            places = [(slice(None), *p) for p in np.ndindex(*a.shape[2:])]
            vectors = [(a[image].ravel(), b[image].ravel())] if whole else [(a[image][p], b[image][p]) for p in places]
            cosines = [sum(u * v) / math.sqrt(sum(u * u) * sum(v * v)) for u, v in vectors]
            assert float(error[image, layer]) == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-12)


@pytest.mark.parametrize("whole", [False, True])
def test_gradient_of_directions(whole: bool) -> None:
    made, wanted = layers()
    gradients = torch.autograd.grad(direction_error(made, wanted, whole).sum(), made)
    for gradient, a, b in zip(gradients, made, wanted, strict=True):
        axes = (1, 2, 3) if whole else (1,)
        norm_a, norm_b = (x.square().sum(axes, keepdim=True).sqrt() for x in (a, b))
        cosine = (a * b).sum(axes, keepdim=True) / (norm_a * norm_b)
        expected = -(b / norm_b - cosine * a / norm_a) / norm_a  # by hand
        torch.testing.assert_close(gradient, (expected if whole else expected / a[0, 0].numel()).detach())


def test_values_number_by_number() -> None:
    made, wanted = layers()
    error = value_error(made, wanted)
    for layer, (a, b) in enumerate(zip(made, wanted, strict=True)):
        for image in range(2):
            expected = np.mean([(float(a[image][p]) - float(b[image][p])) ** 2 for p in np.ndindex(*a[image].shape)])
            assert float(error[image, layer]) == pytest.approx(float(expected), abs=1e-12)
    gradients = torch.autograd.grad(error.sum(), made)
    for gradient, a, b in zip(gradients, made, wanted, strict=True):
        torch.testing.assert_close(gradient, (2 * (a - b) / a[0].numel()).detach())
