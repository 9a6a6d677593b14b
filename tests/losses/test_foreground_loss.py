# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_anomaly.functional import l1_error
from monai_anomaly.losses import ForegroundLoss, ReconstructionLoss
from monai_anomaly.networks.nets import RestorerOutput
from monai_anomaly.transforms import RandCoarseNoise


def _pair(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image in [-1, 1], half of it background but for a trace, and a prediction."""
    generator = torch.Generator().manual_seed(0)
    target = 2 * torch.rand(2, 2, *size, generator=generator, dtype=torch.float64) - 1
    target[..., : size[-1] // 2] = -1
    target[0, 0, ..., 0] = -0.985  # below the threshold, which is 0.02 above the lower end
    target[1, :, ..., 0] = -0.985  # above it, two channels together
    prediction = torch.randn(2, 2, *size, generator=generator, dtype=torch.float64)
    return prediction.requires_grad_(), target


@pytest.mark.parametrize("size", [(4, 6), (3, 2, 4)])
def test_value_and_gradient_pixel_by_pixel(size: tuple[int, ...]) -> None:
    prediction, target = _pair(*size)
    loss = ForegroundLoss()(RestorerOutput(prediction), target)
    total, gradient, weighed = 0.0, np.zeros(target.shape), 0
    for image, *place in np.ndindex(2, *size):
        signal = sum(float(target[(image, c, *place)]) + 1 for c in range(2))
        if signal <= 0.01 * 2:
            continue
        weighed += 1
        for c in range(2):
            difference = float(prediction[(image, c, *place)].detach() - target[(image, c, *place)])
            total += difference**2
            gradient[(image, c, *place)] = 2 * difference / target.numel()
    assert float(loss.detach()) == pytest.approx(total / target.numel(), abs=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(loss, prediction)[0], gradient, atol=1e-12)
    assert weighed == target[0, 0].numel() + np.prod(size[:-1])  # the brighter halves, and the trace in one image


def test_without_background_it_is_the_reconstruction_loss() -> None:
    prediction, target = _pair(4, 4)
    target = target.abs()
    for reduction in ("mean", "sum", "none"):
        output = RestorerOutput(prediction)
        own, plain = (kind(error=l1_error, reduction=reduction) for kind in (ForegroundLoss, ReconstructionLoss))
        torch.testing.assert_close(own(output, target), plain(output, target))


def test_it_weighs_where_the_noise_is_put() -> None:
    image = torch.zeros(1, 16, 16)
    image[:, 3:9, 5:12] = torch.rand(1, 6, 7) + 0.02
    noise = RandCoarseNoise()
    noise.set_random_state(0)
    sample = noise(image)
    loss = ForegroundLoss(value_range=(0.0, 1.0), reduction="none")
    counted = loss(RestorerOutput(image[None] + 1), image[None])[0] > 0
    assert torch.equal(counted, sample["support"])


def test_wrong_arguments_and_what_distinguishes_two() -> None:
    with pytest.raises(ValueError, match="value_range must be two numbers, low < high"):
        ForegroundLoss(value_range=(1, 1))
    with pytest.raises(ValueError, match="reduction"):
        ForegroundLoss(reduction="max")
    assert str(ForegroundLoss()) != str(ForegroundLoss(threshold=0.1))
