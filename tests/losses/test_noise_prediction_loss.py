# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_anomaly.losses import NoisePredictionLoss, NoiseTarget

SHAPE = (3, 2, 4, 5)


def _case() -> tuple[Tensor, NoiseTarget]:
    generator = torch.Generator().manual_seed(0)
    prediction, noise = torch.randn(2, *SHAPE, generator=generator)
    return prediction.requires_grad_(), NoiseTarget(noise, torch.tensor([1.0, 0.1171, 1e-4]))


def _by_hand(prediction: Tensor, target: NoiseTarget) -> list[float]:
    """Weight of each image times the mean of its squared differences, one value after the other."""
    losses = []
    for image, noise, weight in zip(prediction.tolist(), target.noise.tolist(), target.weight.tolist(), strict=True):
        pairs = [
            (p, n)
            for channel, other in zip(image, noise, strict=True)
            for row, own in zip(channel, other, strict=True)
            for p, n in zip(row, own, strict=True)
        ]
        losses.append(weight * sum((p - n) ** 2 for p, n in pairs) / len(pairs))
    return losses


def test_one_value_an_image_and_their_mean_and_sum() -> None:
    prediction, target = _case()
    expected = _by_hand(prediction.detach(), target)
    assert NoisePredictionLoss(reduction="none")(prediction, target).tolist() == pytest.approx(expected, rel=1e-5)
    assert NoisePredictionLoss()(prediction, target).item() == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert NoisePredictionLoss(reduction="sum")(prediction, target).item() == pytest.approx(sum(expected), rel=1e-5)


def test_gradient_is_weighted_image_by_image() -> None:
    prediction, target = _case()
    (gradient,) = torch.autograd.grad(NoisePredictionLoss()(prediction, target), prediction)
    for row, weight in enumerate((1.0, 0.1171, 1e-4)):
        expected = weight * 2 * (prediction[row] - target.noise[row]) / (2 * 4 * 5) / 3
        torch.testing.assert_close(gradient[row], expected.detach())


def test_weights_of_one_give_the_mean_squared_error() -> None:
    prediction, target = _case()
    value = NoisePredictionLoss()(prediction, NoiseTarget(target.noise, torch.ones(3)))
    torch.testing.assert_close(value, torch.nn.functional.mse_loss(prediction, target.noise))


def test_half_precision_is_summed_in_single() -> None:
    noise = torch.full((1, 1, 64, 64), 300.0)
    prediction = torch.zeros_like(noise).half()
    loss = NoisePredictionLoss()(prediction, NoiseTarget(noise, torch.ones(1)))
    assert loss.dtype == torch.float32 and float(loss) == 90000  # half precision ends at 65504


def test_wrong_arguments() -> None:
    prediction, target = _case()
    with pytest.raises(ValueError, match=r"one shape, got \(3, 1, 4, 5\), \(3, 2, 4, 5\)"):
        NoisePredictionLoss()(prediction[:, :1], target)
    with pytest.raises(ValueError, match="reduction must be one of .* got 'median'"):
        NoisePredictionLoss(reduction="median")
