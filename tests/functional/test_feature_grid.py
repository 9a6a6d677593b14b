# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from monai_anomaly.functional import local_mean, to_grid


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(5,), (6, 5), (3, 4, 5)])
def test_maps_that_fit_are_taken_as_they_are(size: tuple[int, ...]) -> None:
    first, second = random(2, 3, *size), random(2, 4, *size, seed=1)
    assert torch.equal(to_grid([first, second], size), torch.cat([first, second], 1))


def test_a_larger_map_is_averaged_and_a_smaller_one_interpolated() -> None:
    large, small = random(2, 3, 13, 8), random(2, 4, 3, 2, seed=1)
    grid = to_grid([large, small], (6, 4))
    assert torch.equal(grid[:, :3], F.adaptive_avg_pool2d(large, (6, 4)))
    assert torch.equal(grid[:, 3:], F.interpolate(small, (6, 4), mode="bilinear", align_corners=False))
    volume = to_grid([random(1, 2, 6, 6, 6)], (2, 3, 2))
    assert torch.equal(volume, F.adaptive_avg_pool3d(random(1, 2, 6, 6, 6), (2, 3, 2)))


def test_by_hand() -> None:
    line = torch.tensor([[[0.0, 2.0, 4.0, 10.0]]])
    assert to_grid([line], (2,)).tolist() == [[[1.0, 7.0]]]
    assert to_grid([line[..., 1:3]], (4,)).tolist() == [[[2.0, 2.5, 3.5, 4.0]]]


def test_an_axis_that_shrinks_is_averaged_where_another_one_grows() -> None:
    grid = to_grid([random(1, 2, 8, 3)], (4, 6))
    pooled = F.avg_pool2d(random(1, 2, 8, 3), (2, 1))
    torch.testing.assert_close(grid, F.interpolate(pooled, (4, 6), mode="bilinear", align_corners=False))


def slow_mean(features: torch.Tensor, place: tuple[int, ...], reach: int) -> torch.Tensor:
    """Roth et al. 2022, Eqs. 1 and 2: the mean over the neighborhood of a place of one image (C, *S)."""
    around = [slice(max(0, index - reach), index + reach + 1) for index in place]
    return features[(slice(None), *around)].flatten(1).mean(1)


@pytest.mark.parametrize("size", [(6,), (5, 4), (4, 5, 3), (1, 2), (2, 1, 2)])
@pytest.mark.parametrize("neighborhood", [1, 3, 5])
def test_the_mean_of_the_neighborhood_is_that_of_the_paper(size: tuple[int, ...], neighborhood: int) -> None:
    features = random(2, 3, *size)
    found = local_mean(features, neighborhood)
    for image in range(2):
        for place in itertools.product(*map(range, size)):
            expected = slow_mean(features[image], place, neighborhood // 2)
            torch.testing.assert_close(found[(image, slice(None), *place)], expected)


def test_the_gradient_of_a_mean_of_the_neighborhood() -> None:
    features = random(1, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: local_mean(given, 3), features)


def test_neighborhoods_are_those_of_each_map_and_are_taken_before_the_grid() -> None:
    fine, coarse = random(2, 3, 8, 8), random(2, 4, 2, 2, seed=1)
    found = to_grid([fine, coarse], (4, 4), neighborhood=3)
    assert torch.equal(found, to_grid([local_mean(fine, 3), local_mean(coarse, 3)], (4, 4)))
    assert torch.equal(to_grid([fine, coarse], (4, 4), neighborhood=1), to_grid([fine, coarse], (4, 4)))


@pytest.mark.parametrize("neighborhood", [0, 4])
def test_a_neighborhood_without_a_middle_is_refused(neighborhood: int) -> None:
    with pytest.raises(
        ValueError, match=f"neighborhood must be an odd number of places, at least 1, got {neighborhood}"
    ):
        to_grid([random(1, 2, 3, 3)], (3, 3), neighborhood=neighborhood)


def test_each_layer_has_the_same_say() -> None:
    maps = [1000 * random(2, 3, 4, 4), random(2, 7, 2, 2, seed=1), 0.01 * random(2, 5, 8, 8, seed=2)]
    grid = to_grid(maps, (4, 4), unit_length=True)
    torch.testing.assert_close(grid.norm(dim=1), torch.ones(2, 4, 4))
    vector, place = to_grid(maps, (4, 4))[1, :, 2, 3].tolist(), grid[1, :, 2, 3].tolist()
    for channels in [slice(0, 3), slice(3, 10), slice(10, 15)]:
        length = math.sqrt(3 * sum(number**2 for number in vector[channels]))
        assert place[channels] == pytest.approx([number / length for number in vector[channels]], abs=1e-6)


def test_the_similarity_of_two_joined_vectors_is_the_mean_of_the_layers() -> None:
    maps = [random(2, 3, 4, 4), random(2, 7, 4, 4, seed=1)]
    grid = to_grid(maps, (4, 4), unit_length=True)
    similarity = torch.stack([F.cosine_similarity(one[0], one[1], dim=0) for one in maps]).mean(0)
    torch.testing.assert_close((grid[0] * grid[1]).sum(0), similarity)


def test_zeros_stay_zeros() -> None:
    assert not to_grid([torch.zeros(1, 3, 2, 2)], (4, 4), unit_length=True).any()


@pytest.mark.parametrize(
    ("shapes", "size", "message"),
    [
        ([], (4, 4), "at least one"),
        ([(2, 3, 4, 4)], (4,), r"got shape \(2, 3, 4, 4\)"),
        ([(2, 3, 4, 4), (1, 3, 4, 4)], (4, 4), r"got shape \(1, 3, 4, 4\)"),
        ([(2, 3, 4, 4)], (4, 0), r"got \(4, 0\)"),
        ([(2, 3)], (), r"got \(\)"),
    ],
)
def test_errors(shapes: list[tuple[int, ...]], size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_grid([torch.zeros(shape) for shape in shapes], size)


def test_export() -> None:
    class Grid(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return to_grid([first, second], (4, 4), unit_length=True)

    maps = (random(2, 3, 8, 8), random(2, 5, 2, 2))
    expected = Grid()(*maps)
    torch.testing.assert_close(torch.jit.trace(Grid(), maps)(*maps), expected)
    torch.testing.assert_close(torch.export.export(Grid(), maps).module()(*maps), expected)
