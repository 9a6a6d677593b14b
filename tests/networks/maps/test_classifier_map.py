# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_anomaly.networks.maps import ClassifierMap, ScoredMapOutput


class Encoder(nn.Module):
    """Each patch of 2 pixels along each axis is a token of its pixels; a class token of ones stands before them."""

    def __init__(self, grid: tuple[int, ...], special: int) -> None:
        super().__init__()
        self.grid, self.special, self.calls = grid, special, 0


class Classifier(nn.Module):
    """Logits (0, 3 m) of features with mean m."""

    def __init__(self, grid: tuple[int, ...], special: int) -> None:
        super().__init__()
        self.encoder = Encoder(grid, special)
        self.head = Head()

    def tokens(self, image: Tensor) -> tuple[Tensor, int]:
        self.encoder.calls += 1
        axes = len(self.encoder.grid)
        blocks = image[:, 0]
        for axis in range(axes):
            blocks = blocks.unfold(1 + axis, 2, 2)
        patches = blocks.flatten(axes + 1).flatten(1, axes)
        first = torch.ones_like(patches[:, : self.encoder.special])
        return torch.cat([first, patches], 1), self.encoder.special

    def pooled(self, tokens: Tensor, special: int) -> Tensor:
        return tokens[:, special:].mean(1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs if inputs.ndim == 2 else self.pooled(*self.tokens(inputs)))


class Head(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(features[:, 0]), 3 * features.mean(1)], 1)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("special", [0, 1])
@pytest.mark.parametrize("size", [(4, 6), (4, 2, 6)])
def test_score_and_map_patch_by_patch(size: tuple[int, ...], special: int) -> None:
    grid = tuple(n // 2 for n in size)
    network = Classifier(grid, special)
    image = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    result = ClassifierMap(network).predict(image)
    assert isinstance(result, ScoredMapOutput) and network.encoder.calls == 1
    each = torch.empty(3, 1, *grid)
    for b in range(3):
        assert float(result.score[b]) == pytest.approx(sigmoid(3 * float(image[b].mean())), abs=1e-6)
        for place in torch.cartesian_prod(*[torch.arange(n) for n in grid]).tolist():
            patch = image[(b, 0, *(slice(2 * i, 2 * i + 2) for i in place))]
            each[(b, 0, *place)] = sigmoid(3 * float(patch.mean()))
    mode = "bilinear" if len(size) == 2 else "trilinear"
    expected = nn.functional.interpolate(each, size=size, mode=mode)
    assert result.score.shape == (3, 1) and result.anomaly_map.shape == (3, 1, *size)
    torch.testing.assert_close(result.anomaly_map, expected)
    torch.testing.assert_close(ClassifierMap(network)(image), expected)


def test_an_anomaly_stands_out_where_it_is() -> None:
    image = torch.full((1, 1, 8, 8), -1.0)
    image[..., 4:6, 2:4] = 1.0
    result = ClassifierMap(Classifier((4, 4), 1))(image)[0, 0]
    assert divmod(int(result.argmax()), 8) in [(row, column) for row in (4, 5) for column in (2, 3)]


def test_no_gradient_is_kept_and_the_export_agrees() -> None:
    network: Any = ClassifierMap(Classifier((2, 3), 1))
    image = torch.randn(2, 1, 4, 6, requires_grad=True)
    assert not network(image).requires_grad
    traced = torch.jit.trace(network, torch.randn(1, 1, 4, 6), check_trace=False)
    torch.testing.assert_close(traced(image.detach()), network(image))
