# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_anomaly.networks.blocks import CouplingFlow, coupling_flow


def flow(channels: int = 5, condition: int = 3, blocks: int = 3, **settings: float) -> CouplingFlow:
    """A small flow whose weights are far from where they start, in double precision."""
    torch.manual_seed(0)
    made = CouplingFlow(channels, condition, blocks, **settings).double()  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data += torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return made


def vectors(number: int, channels: int = 5, condition: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    first, second = (torch.randn(number, n, generator=draw, dtype=torch.float64) for n in (channels, condition))
    return first.requires_grad_(), second


def slow_flow(made: CouplingFlow, vector: Tensor, condition: Tensor, clamp: float) -> tuple[Tensor, Tensor]:
    """Latent vector and log-determinant of one vector, number by number."""
    values, total = list(vector), torch.zeros((), dtype=torch.float64)
    for block in made.blocks:
        half = len(values) - len(values) // 2
        first, second = block.subnet[0], block.subnet[2]
        inner = torch.stack([*values[:half], *condition])
        told = 0.1 * (second.weight @ (first.weight @ inner + first.bias).clamp(min=0) + second.bias)
        for i in range(half, len(values)):
            exponent = clamp * torch.tanh(told[i - half])
            values[i] = values[i] * torch.exp(exponent) + told[i - half + len(values) // 2]
            total = total + exponent
        scales = [0.1 * 2 * torch.log(1 + torch.exp(0.5 * number)) for number in block.global_scale[0]]
        values = [x * scale + y for x, scale, y in zip(values, scales, block.global_offset[0], strict=True)]
        total = total + sum(torch.log(scale) for scale in scales)
        values = [values[i] for i in block.w_perm.tolist()]
    return torch.stack(values), total


@pytest.mark.parametrize(("channels", "clamp"), [(2, 1.9), (5, 0.7), (6, 1.9)])
def test_values_and_gradients_are_those_of_the_formulas(channels: int, clamp: float) -> None:
    made = flow(channels, clamp=clamp)
    given, condition = vectors(4, channels)
    latent, log_det = made(given, condition)
    slow = [slow_flow(made, *pair, clamp) for pair in zip(given, condition, strict=True)]
    torch.testing.assert_close(latent, torch.stack([values for values, _ in slow]))
    torch.testing.assert_close(log_det, torch.stack([total for _, total in slow]))
    wanted = [given, *made.parameters()]
    found = torch.autograd.grad((latent.square().sum() - log_det.sin().sum()), wanted)
    by_hand = sum(values.square().sum() - total.sin() for values, total in slow)
    for one, other in zip(found, torch.autograd.grad(by_hand, wanted), strict=True):
        torch.testing.assert_close(one, other)


def test_the_determinant_is_that_of_the_jacobian() -> None:
    made = flow(6)
    given, condition = vectors(3, 6)
    _, log_det = made(given, condition)
    for number in range(3):
        place = condition[number : number + 1]

        def latent(vector: Tensor, place: Tensor = place) -> Tensor:
            return made(vector[None], place)[0][0]

        jacobian = torch.autograd.functional.jacobian(latent, given[number])
        assert float(log_det[number]) == pytest.approx(math.log(abs(np.linalg.det(jacobian.numpy()))))


@pytest.mark.parametrize("channels", [2, 5, 6])
def test_the_inverse_gives_the_vectors_back(channels: int) -> None:
    made = flow(channels)
    given, condition = vectors(7, channels)
    latent, _ = made(given, condition)
    assert (latent - given).abs().max() > 0.1
    torch.testing.assert_close(made.inverse(latent, condition), given)
    assert not torch.allclose(made.inverse(latent, condition + 1), given, atol=1e-3), "the condition matters"


def test_blocks_are_those_of_the_library() -> None:
    from FrEIA.modules import AllInOneBlock

    made = flow()
    given, condition = vectors(4)
    latent, log_det, expected, total = given, 0, given, 0
    for block in made.blocks:
        theirs = AllInOneBlock([(5,)], [(3,)], coupling_flow._subnet, affine_clamping=1.9).double()
        state = block.state_dict() | {"w_perm": torch.eye(5)[block.w_perm], "w_perm_inv": torch.eye(5)[block.w_perm].T}
        theirs.load_state_dict(state)
        (expected,), change = theirs((expected,), c=[condition])
        total = total + change
        (latent,), change = block((latent,), c=[condition])
        log_det = log_det + change
    torch.testing.assert_close(latent, expected)
    torch.testing.assert_close(log_det, total)
    torch.testing.assert_close(made(given, condition), (latent, log_det))


def test_orders_come_from_the_seed_and_with_the_weights() -> None:
    def orders(made: CouplingFlow) -> list[list[int]]:
        return [block.w_perm.tolist() for block in made.blocks]

    np.random.seed(0)
    first = CouplingFlow(16, 2, 3, seed=5)
    np.random.seed(1)
    assert orders(CouplingFlow(16, 2, 3, seed=5)) == orders(first)
    assert len({tuple(order) for order in orders(first)}) == 3
    other = CouplingFlow(16, 2, 3, seed=6)
    assert orders(other) != orders(first)
    other.load_state_dict(first.state_dict())
    given = torch.rand(4, 16), torch.rand(4, 2)
    assert orders(other) == orders(first) and torch.equal(other(*given)[0], first(*given)[0])
    assert all(sorted(order) == list(range(16)) for order in orders(first))
    trained = {name for name, _ in first.named_parameters()}
    assert not any("perm" in name for name in trained), "no optimizer changes an order"


def test_what_is_made_anew_has_the_same_gradient() -> None:
    given, condition = vectors(6)
    results = []
    for recompute in (False, True):
        made = flow(recompute=recompute)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            latent, log_det = made(given, condition)
        value = latent.square().sum() - log_det.sum()
        results.append((sum(kept), torch.autograd.grad(value, [given, *made.parameters()])))
    assert results[1][0] < 0.5 * results[0][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "wrong", [{"channels": 1}, {"condition": 0}, {"blocks": 0}, {"clamp": 0.0}], ids=lambda wrong: next(iter(wrong))
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="channels must be at least 2, condition and blocks at least 1, clamp above 0"):
        CouplingFlow(**({"channels": 4} | wrong))


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupling_flow, "optional_import", lambda *_, **__: (None, False))
    with pytest.raises(ValueError, match=r"need the package FrEIA: pip install monai-anomaly\[flows\]"):
        CouplingFlow(4)
