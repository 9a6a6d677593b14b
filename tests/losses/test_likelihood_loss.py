# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monai_anomaly.losses import LikelihoodLoss
from monai_anomaly.networks.blocks import LikelihoodOutput


def output() -> LikelihoodOutput:
    draw = torch.Generator().manual_seed(0)
    maps = [3 * torch.randn(2, 1, *size, generator=draw, dtype=torch.float64) for size in ((3, 4), (2, 2))]
    return LikelihoodOutput([each.requires_grad_() for each in maps], torch.zeros(2))


def slow_values(given: LikelihoodOutput, form: str) -> list[float]:
    """One value an image, place by place."""
    values = []
    for image in range(2):
        total = 0.0
        for layer in given.log_likelihood:
            places = layer[image].detach().flatten().tolist()
            terms = [-math.log(1 / (1 + math.exp(-x))) if form == "log_sigmoid" else -x for x in places]
            total += sum(terms) / len(terms)
        values.append(total)
    return values


@pytest.mark.parametrize("form", ["log_sigmoid", "likelihood"])
def test_value_and_gradient_are_those_of_the_formula(form: str) -> None:
    given = output()
    expected = slow_values(given, form)
    assert LikelihoodLoss(form, "none")(given).tolist() == pytest.approx(expected)
    assert float(LikelihoodLoss(form, "sum")(given).detach()) == pytest.approx(sum(expected))
    loss: Tensor = LikelihoodLoss(form)(given)
    assert float(loss.detach()) == pytest.approx(sum(expected) / 2)
    loss.backward()
    for layer in given.log_likelihood:
        for x, gradient in zip(layer.detach().flatten().tolist(), layer.grad.flatten().tolist(), strict=True):  # type: ignore[union-attr]
            slope = -1 / (1 + math.exp(x)) if form == "log_sigmoid" else -1.0
            assert gradient == pytest.approx(slope / layer.numel())


def test_the_default_is_that_of_the_published_code_and_stays_finite() -> None:
    assert LikelihoodLoss().form == "log_sigmoid" and "log_sigmoid" in str(LikelihoodLoss())
    far = LikelihoodOutput([torch.tensor([[[[-1e4, 1e4]]]])], torch.zeros(1))
    assert float(LikelihoodLoss()(far)) == pytest.approx(5e3)
    with pytest.raises(ValueError, match="form must be 'log_sigmoid' or 'likelihood', got 'nll'"):
        LikelihoodLoss("nll")
