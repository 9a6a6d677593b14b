# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from monai_anomaly.functional import published_patches


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def averaged(numbers: list[float], count: int) -> list[float]:
    """Means of ``count`` windows of a list, each from floor(i K / count) to ceil((i + 1) K / count)."""
    length = len(numbers)
    windows = [(i * length // count, math.ceil((i + 1) * length / count)) for i in range(count)]
    return [sum(numbers[start:stop]) / (stop - start) for start, stop in windows]


def slow_vector(features: torch.Tensor, place: tuple[int, ...], channels: int) -> list[float]:
    """The 3 x 3 neighborhood of a place (C, H, W), zeros outside, channel by channel, averaged."""
    row, column = place
    numbers = []
    for channel in features:
        for y in (row - 1, row, row + 1):
            for x in (column - 1, column, column + 1):
                inside = 0 <= y < channel.shape[0] and 0 <= x < channel.shape[1]
                numbers.append(channel[y, x].item() if inside else 0.0)
    return averaged(numbers, channels)


@pytest.mark.parametrize("channels", [4, 7, 40])
def test_vectors_are_those_of_the_published_code(channels: int) -> None:
    maps = [random(2, 2, 4, 3), random(2, 5, 4, 3, seed=1)]
    found = published_patches(maps, (4, 3), channels=channels)
    assert found.shape == (2, channels, 4, 3)
    for image in range(2):
        for place in [(0, 0), (1, 1), (3, 2), (2, 0)]:
            joined = [number for each in maps for number in slow_vector(each[image], place, channels)]
            expected = averaged(joined, channels)
            assert found[(image, slice(None), *place)].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(6,), (5, 6), (6, 5, 7)])
def test_as_many_channels_as_numbers_are_means_with_zeros_beyond_the_border(size: tuple[int, ...]) -> None:
    features = random(2, 8, *size)
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(size) - 1]
    torch.testing.assert_close(published_patches([features], size, channels=8), pool(features, 3, 1, 1))
    wide = published_patches([features], size, neighborhood=5, channels=8)
    torch.testing.assert_close(wide, pool(features, 5, 1, 2))
    assert torch.equal(published_patches([features], size, neighborhood=1, channels=8), features)


def test_half_as_many_channels_mix_half_of_the_neighbors_of_a_channel() -> None:
    features = random(1, 512, 3, 3)
    found = published_patches([features], (3, 3), channels=1024)[0, :, 1, 1]
    around = features[0, 0].flatten()  # the whole map is the neighborhood of its center
    torch.testing.assert_close(found[:2], torch.stack([around[0:5].mean(), around[4:9].mean()]))


def test_a_smaller_map_is_enlarged_after_the_neighborhoods_were_taken() -> None:
    small = random(1, 4, 3, 3)
    expected = F.interpolate(F.avg_pool2d(small, 3, 1, 1), (6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(published_patches([small], (6, 6), channels=4), expected)


def test_gradients_pass() -> None:
    maps = [random(1, 2, 3, 3).double().requires_grad_(), random(1, 3, 2, 2).double().requires_grad_()]
    assert torch.autograd.gradcheck(lambda *given: published_patches(given, (3, 3), channels=5), maps)


@pytest.mark.parametrize("neighborhood", [0, 2])
def test_an_even_neighborhood_is_refused(neighborhood: int) -> None:
    with pytest.raises(
        ValueError, match=f"neighborhood must be an odd number of places, at least 1, got {neighborhood}"
    ):
        published_patches([torch.zeros(1, 2, 3, 3)], (3, 3), neighborhood=neighborhood)
    with pytest.raises(ValueError, match="at least one feature map"):
        published_patches([], (3, 3))
