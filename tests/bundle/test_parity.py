# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from monai_anomaly.bundle.parity import compare_maps, takes_gradient

MAPS = torch.linspace(0, 4, 400).reshape(4, 1, 10, 10)


@pytest.mark.parametrize(
    ("count", "change", "plain", "jumping"),
    [
        (400, 0.9e-4, True, True),
        (1, 1.1e-4, False, True),  # one value, by a little more
        (4, 0.9e-2, False, True),  # one of a hundred, by a hundred times the tolerance
        (5, 0.9e-2, False, False),  # too many
        (1, 1.1e-2, False, False),  # too far
        (1, float("nan"), False, False),
    ],
)
def test_how_far_maps_may_be_apart(count: int, change: float, plain: bool, jumping: bool) -> None:
    changed = MAPS.double().clone()
    changed.view(-1)[:count] += 4 * change
    parity = compare_maps(changed, MAPS.double())
    assert (parity.holds(1e-4, jumps=False), parity.holds(1e-4, jumps=True)) == (plain, jumping)
    if change == change:
        assert parity.difference == pytest.approx(change) and parity.share == pytest.approx(
            count / 400 if change > 1e-4 else 0
        )


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.ReLU6(), nn.ELU(), nn.Tanh()])
def test_a_gradient_of_an_activation_with_an_edge_is_seen(activation: nn.Module) -> None:
    def plain(image: Tensor) -> Tensor:
        result: Tensor = activation(image)
        return result

    def slope(image: Tensor) -> Tensor:
        image = image.detach().requires_grad_()
        return torch.autograd.grad(activation(image).sum(), image)[0]

    assert not takes_gradient(make_fx(plain)(MAPS))
    assert takes_gradient(make_fx(slope)(MAPS)) is not isinstance(activation, nn.Tanh)
