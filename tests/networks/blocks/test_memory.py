# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch

from monai_anomaly.networks.blocks import MemoryBlock


def slow_address(code: list[float], slots: list[list[float]], threshold: float) -> list[float]:
    """Gong et al. 2019, Eqs. 4-7 with the dot product, one number at a time."""
    weights = [math.exp(sum(z * w for z, w in zip(code, slot, strict=True))) for slot in slots]
    address = [w / sum(weights) for w in weights]
    if threshold > 0:
        # relu(a - t) a / |a - t| keeps a where it is above t and drops it elsewhere
        address = [a if a > threshold else 0.0 for a in address]
        address = [a / sum(address) for a in address]
    return address


@pytest.mark.parametrize("threshold", [0.0, 0.0025, 0.03])
@pytest.mark.parametrize("spread", [0.5, 5.0, 40.0])
def test_lookup(threshold: float, spread: float) -> None:
    torch.manual_seed(0)
    memory = MemoryBlock(25, 16, threshold).double()
    code = spread * torch.randn(9, 16, dtype=torch.float64)
    mix, address = memory(code)
    slots = memory.slots.tolist()
    expected = torch.tensor([slow_address(z, slots, threshold) for z in code.tolist()], dtype=torch.float64)
    torch.testing.assert_close(address, expected, atol=1e-8, rtol=0)
    for row, weights in zip(mix, expected.tolist(), strict=True):
        by_hand = [sum(w * slot[c] for w, slot in zip(weights, slots, strict=True)) for c in range(16)]
        torch.testing.assert_close(row, torch.tensor(by_hand, dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.parametrize("threshold", [0.0, 0.0025, 0.0399])
def test_rows_sum_to_one_and_some_slot_survives(threshold: float) -> None:
    torch.manual_seed(1)
    memory = MemoryBlock(25, 16, threshold)
    # flat, ordinary and very sharp addresses; the flattest one has every slot at 1/25
    code = torch.cat([torch.zeros(1, 16), 1e-3 * torch.randn(50, 16), torch.randn(50, 16), 500 * torch.randn(50, 16)])
    _, address = memory(code)
    torch.testing.assert_close(address.sum(1), torch.ones(151), atol=1e-5, rtol=0)
    assert bool((address >= 0).all()) and bool((address > 0).any(1).all())
    if threshold:
        assert bool((address == 0).any())


def test_gradient() -> None:
    torch.manual_seed(2)
    memory = MemoryBlock(6, 3, 0.1).double()
    code = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: memory(z), code)


def test_torchscript() -> None:
    memory = MemoryBlock(6, 3, 0.1)
    code = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(memory(code), torch.jit.script(memory)(code), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), "positive, got 0 and 4"),
        ((4, 0), "positive, got 4 and 0"),
        ((4, 4, 1.0), "1.0"),
        ((4, 4, -0.1), "-0.1"),
    ],
)
def test_errors(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryBlock(*arguments)  # type: ignore[arg-type]


def test_a_code_that_loses_all_its_slots_becomes_zero() -> None:
    # the original code shrinks 2000 slots by 0.0025, five times an even share
    memory = MemoryBlock(2000, 16, 0.0025)
    remembered, address = memory(torch.zeros(2, 16))
    assert torch.equal(remembered, torch.zeros(2, 16)) and torch.equal(address, torch.zeros(2, 2000))
