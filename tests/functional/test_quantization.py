# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_anomaly.functional import from_nibbles, to_nibbles
from monai_anomaly.functional.quantization import NORMAL_STEP


@pytest.mark.parametrize("count", [1, 4, 7])
def test_every_number_becomes_the_nearest_level(count: int) -> None:
    values = torch.randn(3, 5, count, generator=torch.Generator().manual_seed(0))
    mean, step = torch.linspace(-0.5, 0.5, count), torch.linspace(0.1, 0.4, count)
    packed = to_nibbles(values, mean, step)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, 5, (count + 1) // 2)
    for place, number in enumerate(from_nibbles(packed, mean, step).flatten(0, 1).T):
        levels = mean[place] + (torch.arange(16) - 7.5) * step[place]
        given = values[..., place].flatten()
        expected = (given[:, None] - levels).abs().amin(1)
        torch.testing.assert_close((given - number).abs(), expected)


def test_of_a_normal_variable_they_lose_what_max_found() -> None:
    values = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    mean, step = torch.zeros(2), torch.full((2,), NORMAL_STEP)
    lost = (from_nibbles(to_nibbles(values, mean, step), mean, step) - values).square().mean()
    assert float(lost) == pytest.approx(0.01154, rel=0.02)


def test_numbers_that_do_not_vary_are_their_mean() -> None:
    mean, step = torch.tensor([0.25, -3.0]), torch.zeros(2)
    assert torch.equal(from_nibbles(to_nibbles(mean.expand(4, 2), mean, step), mean, step), mean.expand(4, 2))
