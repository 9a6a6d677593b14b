# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal
from torch import nn

from monai_anomaly.networks.nets import DenoisingUNet, StandardizedConvolution
from monai_anomaly.networks.nets.denoising_unet import middle_divisor


@pytest.mark.parametrize("size", [(6, 7), (4, 5, 3)])
def test_filters_are_standardized_and_correlated_with_the_mirrored_image(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = StandardizedConvolution(len(size), 3, 4).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    result = layer(image)
    assert result.shape == (2, 4, *size)
    filters, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    for sample, channel in np.ndindex(2, 4):
        values = filters[channel].ravel().tolist()
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        wanted = np.full(size, bias[channel])
        for source in range(3):
            kernel = (filters[channel, source] - mean) / (deviation + 1e-5)
            mirrored = np.pad(image[sample, source].numpy(), 1, mode="reflect")
            wanted = wanted + signal.correlate(mirrored, kernel, mode="valid", method="direct")
        np.testing.assert_allclose(result[sample, channel].detach(), wanted, atol=1e-10)


def test_gradient_of_a_standardized_filter() -> None:
    torch.manual_seed(0)
    layer = StandardizedConvolution(2, 1, 2).double()
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64)

    def by_weight(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (image,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(by_weight, layer.weight.detach().clone().requires_grad_())
    # neither an offset nor a factor of a filter has an effect
    torch.testing.assert_close(by_weight(3 * layer.weight + 7), by_weight(layer.weight), atol=1e-3, rtol=1e-3)


def test_it_has_as_many_parameters_as_published() -> None:
    def level(a: int, b: int) -> int:
        return 9 * a * b + b + 9 * b * b + b + 4 * b  # two convolutions and the scales and shifts of two normalizations

    widths = [64, 128, 256, 512]
    expected = sum(level(a, b) for a, b in zip([3, *widths[:-1]], widths, strict=True))
    expected += sum(4 * b * a + a + level(2 * a, a) for a, b in zip(widths[:-1], widths[1:], strict=True))
    expected += 64 * 3 + 3
    found = sum(parameter.numel() for parameter in DenoisingUNet(2, 3).parameters())
    assert found == expected and round(found / 1e6, 2) == 7.70


def test_the_activation_comes_before_the_normalization() -> None:
    network = DenoisingUNet(2, 1)
    levels = [*network.down, *network.up]
    assert [[type(layer) for layer in level] for level in levels] == [
        [StandardizedConvolution, nn.SiLU, nn.GroupNorm] * 2
    ] * 7
    assert [level[2].num_groups for level in network.down] == [8, 16, 16, 32]  # type: ignore[index]
    assert [middle_divisor(number) for number in (1, 2, 6, 7, 12)] == [1, 2, 3, 7, 4]


@pytest.mark.parametrize("dims", [2, 3])
def test_pass_through_the_levels_by_hand(dims: int) -> None:
    torch.manual_seed(0)
    network = DenoisingUNet(dims, 2, (4, 6, 8)).eval()
    image = torch.randn(2, 2, *[8] * dims)
    (d1, d2, d3), (u2, u1), (e2, e1) = network.down, network.up, network.enlarge
    pooled = torch.nn.functional.avg_pool2d if dims == 2 else torch.nn.functional.avg_pool3d
    with torch.no_grad():
        a = d1(image)
        b = d2(pooled(a, 2))
        c = d3(pooled(b, 2))
        c = u2(torch.cat([e2(c), b], 1))
        wanted = network.last(u1(torch.cat([e1(c), a], 1)))
        result = network(image)
        alone = torch.cat([network(one[None]).reconstruction for one in image])
        scripted = torch.jit.script(network)(image)
    assert torch.equal(result.reconstruction, wanted) and result.log_variance is None
    torch.testing.assert_close(alone, wanted)
    torch.testing.assert_close(scripted.reconstruction, wanted)


def test_it_learns_to_take_noise_away() -> None:
    torch.manual_seed(0)
    network = DenoisingUNet(2, 1, (8, 8))
    clean = torch.rand(4, 1, 1, 1).expand(4, 1, 8, 8)
    noisy = clean + 0.3 * torch.randn(4, 1, 8, 8)
    optimizer, values = torch.optim.Adam(network.parameters(), 0.01, amsgrad=True), []
    for _ in range(25):
        optimizer.zero_grad()
        value = (network(noisy).reconstruction - clean).square().mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.3 * values[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("size", [(8, 10), (4, 8)])
def test_a_size_that_does_not_fit_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiple of 4, twice at least"):
        DenoisingUNet(2, 1, (4, 4, 4))(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("wrong", [{"spatial_dims": 1}, {"in_channels": 0}, {"channels": ()}, {"channels": (4, 0)}])
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        DenoisingUNet(**wrong)
