# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monai_anomaly.losses import FeatureDirectionLoss
from monai_anomaly.networks.blocks import FeatureOutput


def output() -> FeatureOutput:
    draw = torch.Generator().manual_seed(0)
    sizes = [(2, 3, 3, 4), (2, 2, 2, 2)]
    made, wanted = ([torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes] for _ in range(2))
    return FeatureOutput([each.requires_grad_() for each in made], wanted)


def slow_loss(given: FeatureOutput, whole: bool, weight: float) -> list[Tensor]:
    """One value an image, vector by vector."""
    values = []
    for image in range(2):
        value = torch.zeros((), dtype=torch.float64)
        for made, wanted in zip(given.prediction, given.target, strict=True):
            a, b = made[image].flatten(1), wanted[image].flatten(1)
            vectors = [(a.flatten(), b.flatten())] if whole else [(a[:, i], b[:, i]) for i in range(a.shape[1])]
            for u, v in vectors:
                value = value + (1 - u @ v / (u @ u).sqrt() / (v @ v).sqrt()) / len(vectors)
            value = value + weight * sum((a - b).flatten() ** 2) / a.numel()
        values.append(value)
    return values


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_value_and_gradient_are_those_of_the_slow_formula(whole: bool, weight: float) -> None:
    given = output()
    expected = slow_loss(given, whole, weight)
    each = FeatureDirectionLoss(whole, weight, reduction="none")(given)
    torch.testing.assert_close(each, torch.stack(expected))
    value = FeatureDirectionLoss(whole, weight)(given, torch.zeros(()))
    assert float(value) == pytest.approx(float(sum(expected)) / 2)
    gradients = torch.autograd.grad(value, given.prediction)
    wanted = torch.autograd.grad(sum(expected) / 2, given.prediction)
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other)


def test_a_map_as_one_vector_lets_large_places_drown_small_ones() -> None:
    wanted = torch.ones(1, 2, 1, 2, dtype=torch.float64)
    wanted[..., 0] *= 1000
    made = wanted.clone()
    made[..., 1] *= -1  # the small place points the other way
    given = FeatureOutput([made], [wanted])
    assert float(FeatureDirectionLoss()(given)) == pytest.approx(1)
    assert float(FeatureDirectionLoss(whole=True)(given)) < 1e-5


def test_wrong_arguments_and_what_it_says_of_itself() -> None:
    with pytest.raises(ValueError, match="value_weight must be 0 or more, got -1"):
        FeatureDirectionLoss(value_weight=-1)
    with pytest.raises(ValueError, match="reduction must be one of"):
        FeatureDirectionLoss(reduction="max")
    assert repr(FeatureDirectionLoss(True, 0.01)) == "FeatureDirectionLoss(whole=True, value_weight=0.01)"
    assert math.isclose(
        float(FeatureDirectionLoss(reduction="sum")(output())), float(sum(slow_loss(output(), False, 0)))
    )
