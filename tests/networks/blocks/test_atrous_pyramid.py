# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from monai_anomaly.networks.blocks import AtrousPyramid


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    draw = torch.Generator().manual_seed(1)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=draw) + 0.1
    return network.double().eval()


def convolved(features: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """A convolution as a sum of shifted maps, with zeros outside."""
    size, reach = features.shape[2:], weight.shape[2] // 2
    result = torch.zeros(len(features), len(weight), *size, dtype=features.dtype)
    for place in itertools.product(*map(range, size)):
        for offset in itertools.product(range(-reach, reach + 1), repeat=len(size)):
            seen = [p + dilation * o for p, o in zip(place, offset, strict=True)]
            if all(0 <= p < n for p, n in zip(seen, size, strict=True)):
                kernel = weight[(slice(None), slice(None), *[o + reach for o in offset])]
                result[(slice(None), slice(None), *place)] += features[(slice(None), slice(None), *seen)] @ kernel.T
    return result


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 3)])
def test_branches_are_those_of_the_paper(size: tuple[int, ...]) -> None:
    pyramid = randomized(AtrousPyramid(2, 3, [1, 2], len(size)))
    features = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = iter([t for k, t in pyramid.state_dict().items() if not k.endswith("num_batches_tracked")])

    def unit(x: Tensor, dilation: int = 1) -> Tensor:
        weight, scale, shift, mean, variance = (next(given) for _ in range(5))
        shape = (1, -1, *[1] * len(size))
        x = (convolved(x, weight, dilation) - mean.reshape(shape)) / (variance + 1e-5).sqrt().reshape(shape)
        return (x * scale.reshape(shape) + shift.reshape(shape)).clamp_min(0)

    seen = [unit(features), unit(features, 1), unit(features, 2)]
    mean = features.flatten(2).mean(2).reshape(2, 2, *[1] * len(size))
    seen.append(unit(mean) * torch.ones_like(seen[0]))
    torch.testing.assert_close(pyramid(features), unit(torch.cat(seen, 1)))


@pytest.mark.parametrize("dilations", [[], [6, 0]])
def test_dilations_that_do_not_fit_are_refused(dilations: list[int]) -> None:
    with pytest.raises(ValueError, match="dilations must be one or more numbers of 1 or more"):
        AtrousPyramid(2, 2, dilations)
