# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from monai_anomaly.transforms.synthesis.placements import (
    CenterPlacement,
    FixedPlacement,
    ForegroundPlacement,
    UniformPlacement,
)
from monai_anomaly.transforms.synthesis.plan import Frame

Corner = tuple[int, ...]


class Counting(np.random.RandomState):
    """A random state that counts how many places were drawn from it."""

    calls = 0

    def randint(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().randint(*args, **kwargs)


def frame(shape: Corner, foreground: np.ndarray | None = None) -> Frame:
    return Frame(torch.zeros(1, *shape), foreground)


def blob(shape: Corner, seed: int = 0) -> np.ndarray:
    """A foreground of several regions."""
    return np.asarray(ndimage.gaussian_filter(np.random.RandomState(seed).rand(*shape), 1.5) > 0.51)


def some_mask(shape: Corner, seed: int = 3) -> np.ndarray:
    mask = np.random.RandomState(seed).rand(*shape) < 0.6
    mask.flat[0] = True
    return mask


def corners_inside(shape: Corner, size: Corner) -> list[Corner]:
    return list(product(*[range(n - p + 1) for n, p in zip(shape, size, strict=True)]))


def overlap(mask: np.ndarray, foreground: np.ndarray, corner: Corner) -> float:
    """Share of the mask's voxels in the foreground, counted one by one."""
    voxels = [tuple(voxel) for voxel in np.argwhere(mask)]
    return sum(foreground[tuple(c + v for c, v in zip(corner, voxel, strict=True))] for voxel in voxels) / len(voxels)


def draw(placement: Any, mask: np.ndarray, where: Frame, count: int, seed: int = 0) -> list[Corner]:
    rng = np.random.RandomState(seed)
    corners = [placement(rng, mask, where) for _ in range(count)]
    assert all(isinstance(corner, tuple) and all(isinstance(c, int) for c in corner) for corner in corners)
    return corners


def assert_distribution(corners: list[Corner], probability: dict[Corner, float]) -> None:
    counts = dict.fromkeys(probability, 0)
    for corner in corners:
        counts[corner] += 1  # KeyError: a place that must not be
    expected = np.array(list(probability.values())) * len(corners)
    assert expected.min() > 4
    assert len(counts) == 1 or stats.chisquare(list(counts.values()), expected).pvalue > 0.005


def alike(corners: list[Corner]) -> dict[Corner, float]:
    return dict.fromkeys(corners, 1 / len(corners))


@pytest.mark.parametrize(
    ("shape", "size"), [((9, 7), (4, 2)), ((5, 5), (5, 3)), ((4, 5, 6), (3, 2, 5)), ((4, 4), (4, 4))]
)
def test_without_a_foreground_all_positions_inside_are_alike(shape: Corner, size: Corner) -> None:
    mask = np.ones(size, dtype=bool)
    for near in ("image", "region"):
        corners = draw(UniformPlacement(1.0, near=near), mask, frame(shape), 1500)
        assert_distribution(corners, alike(corners_inside(shape, size)))


@pytest.mark.parametrize(("shape", "size"), [((14, 12), (4, 3)), ((8, 7, 6), (3, 2, 3))])
@pytest.mark.parametrize("needed", [0.5, 0.25, 1.0])
def test_positions_with_enough_overlap_are_alike(shape: Corner, size: Corner, needed: float) -> None:
    foreground = blob(shape)
    if needed == 1.0:
        foreground = np.asarray(ndimage.binary_dilation(foreground))
    mask = some_mask(size)
    allowed = [c for c in corners_inside(shape, size) if overlap(mask, foreground, c) >= needed]
    assert 3 < len(allowed) < len(corners_inside(shape, size))
    corners = draw(UniformPlacement(needed), mask, frame(shape, foreground), 20 * len(allowed))
    assert_distribution(corners, alike(allowed))


def test_half_of_the_mask_is_enough_and_less_is_not() -> None:
    foreground = np.zeros((1, 6), dtype=bool)
    foreground[0, :2] = True
    mask = np.ones((1, 4), dtype=bool)
    assert set(draw(UniformPlacement(), mask, frame((1, 6), foreground), 100)) == {(0, 0)}
    foreground[0, 1] = False
    assert UniformPlacement()(np.random.RandomState(0), mask, frame((1, 6), foreground)) is None


def test_a_box_larger_than_the_image_has_no_place() -> None:
    for near in ("image", "region"):
        for size in ((7, 2), (2, 8)):
            mask = np.ones(size, dtype=bool)
            for foreground in (None, np.ones((6, 7), dtype=bool)):
                where = frame((6, 7), foreground)
                assert UniformPlacement(near=near)(np.random.RandomState(0), mask, where) is None


@pytest.mark.parametrize("near", ["image", "region"])
def test_an_impossible_overlap_is_given_up_after_the_attempts(near: str) -> None:
    foreground = np.zeros((20, 20), dtype=bool)
    foreground[3, 4] = True
    rng = Counting(0)
    placement = UniformPlacement(0.9, near=near, max_attempts=37)
    assert placement(rng, np.ones((5, 5), dtype=bool), frame((20, 20), foreground)) is None
    assert rng.calls == 37


@pytest.mark.parametrize(
    ("start", "decay", "every", "attempt"), [(1.0, 0.5, 5, 6), (0.8, 0.5, 4, 5), (0.4, 0.5, 7, 1), (1, 0.7, 3, 7)]
)
def test_the_overlap_decays_after_so_many_failures(start: float, decay: float, every: int, attempt: int) -> None:
    foreground = np.zeros((8, 8), dtype=bool)
    foreground[::2] = True  # each 2 x 2 box has exactly one half in it
    mask = np.ones((2, 2), dtype=bool)
    rng = Counting(0)
    placement = UniformPlacement(start, decay, every)
    assert placement(rng, mask, frame((8, 8), foreground)) is not None
    assert rng.calls == attempt
    if attempt > 1:
        early = UniformPlacement(start, decay, every, max_attempts=attempt - 1)
        assert early(np.random.RandomState(0), mask, frame((8, 8), foreground)) is None


def test_near_a_region_by_the_volume_of_its_box() -> None:
    shape, size = (12, 11), (3, 2)
    foreground = np.zeros(shape, dtype=bool)
    foreground[1:6, 1] = foreground[1, 1:5] = True  # an L, its box 5 x 4
    foreground[9:11, 8:11] = True  # 2 x 3
    regions = [((1, 6), (1, 5), 20), ((9, 11), (8, 11), 6)]
    probability: dict[Corner, float] = {}
    for rows, columns, volume in regions:
        touching = [
            corner
            for corner in corners_inside(shape, size)
            if all(
                c < stop and c + p > first for c, p, (first, stop) in zip(corner, size, (rows, columns), strict=True)
            )
        ]
        for corner in touching:
            probability[corner] = probability.get(corner, 0) + volume / 26 / len(touching)
    placement = UniformPlacement(0.0, near="region")
    corners = draw(placement, np.ones(size, dtype=bool), frame(shape, foreground), 3000)
    assert_distribution(corners, probability)


def test_near_a_region_and_with_enough_overlap() -> None:
    shape, size = (12, 11), (4, 3)
    foreground = np.zeros(shape, dtype=bool)
    foreground[4:9, 3:8] = True
    mask = some_mask(size)
    allowed = [c for c in corners_inside(shape, size) if overlap(mask, foreground, c) >= 0.5]
    corners = draw(UniformPlacement(0.5, near="region"), mask, frame(shape, foreground), 30 * len(allowed))
    assert_distribution(corners, alike(allowed))


def test_a_box_as_large_as_the_image_is_near_every_region() -> None:
    foreground = np.zeros((6, 6), dtype=bool)
    foreground[0, 0] = True
    placement = UniformPlacement(0.0, near="region")
    assert placement(np.random.RandomState(0), np.ones((6, 6), dtype=bool), frame((6, 6), foreground)) == (0, 0)


@pytest.mark.parametrize(("shape", "core"), [((20, 10), 0.8), ((20, 10), 0.5), ((10, 10), 1.0), ((10, 6, 8), 0.5)])
def test_centers_are_uniform_in_the_core(shape: Corner, core: float) -> None:
    size = (6, 4, 8)[: len(shape)]
    mask = np.ones(size, dtype=bool)
    centers = []
    for length in shape:
        margin = round(length * (1 - core) / 2)
        centers.append(range(margin, length - margin))
    expected = [tuple(c - p // 2 for c, p in zip(center, size, strict=True)) for center in product(*centers)]
    corners = draw(CenterPlacement(core), mask, frame(shape), 15 * len(expected))
    assert_distribution(corners, alike(expected))


def test_a_box_may_leave_the_image_but_its_center_may_not() -> None:
    corners = np.array(draw(CenterPlacement(1.0), np.ones((8, 8), dtype=bool), frame((10, 10)), 300))
    assert corners.min() == -4 and corners.max() == 5


def test_centers_lie_in_the_foreground_and_in_the_core() -> None:
    foreground = blob((16, 12), seed=1)
    mask = np.ones((2, 4), dtype=bool)
    allowed = [(i - 1, j - 2) for i, j in product(range(4, 12), range(3, 9)) if foreground[i, j]]
    assert 5 < len(allowed) < 48
    corners = draw(CenterPlacement(0.5), mask, frame((16, 12), foreground), 20 * len(allowed))
    assert_distribution(corners, alike(allowed))
    corners = draw(CenterPlacement(0.5, in_foreground=False), mask, frame((16, 12), foreground), 1000)
    assert_distribution(corners, alike(list(product(range(3, 11), range(1, 7)))))


def test_a_center_in_the_foreground_is_found_if_there_is_one() -> None:
    foreground, mask = np.zeros((60, 60), dtype=bool), np.ones((3, 3), dtype=bool)
    foreground[0, 0] = True  # outside of the core
    assert CenterPlacement()(np.random.RandomState(0), mask, frame((60, 60), foreground)) is None
    foreground[30, 40] = True
    assert set(draw(CenterPlacement(), mask, frame((60, 60), foreground), 20)) == {(29, 39)}


def test_a_tiny_core_still_has_a_center() -> None:
    assert set(draw(CenterPlacement(0.01), np.ones((1, 1), dtype=bool), frame((9, 4)), 50)) <= {(4, 2), (4, 1)}


def test_foreground_voxels_are_alike_as_centers() -> None:
    foreground = blob((9, 8), seed=2)
    mask = np.ones((3, 4), dtype=bool)
    expected = [(int(i) - 1, int(j) - 2) for i, j in np.argwhere(foreground)]
    corners = draw(ForegroundPlacement(), mask, frame((9, 8), foreground), 20 * len(expected))
    assert_distribution(corners, alike(expected))
    corners = draw(ForegroundPlacement(), mask, frame((5, 4)), 800)
    assert_distribution(corners, alike([(i - 1, j - 2) for i, j in product(range(5), range(4))]))


def test_a_fixed_placement_stays() -> None:
    assert FixedPlacement()(np.random.RandomState(0), np.ones((3, 4, 5), dtype=bool), frame((3, 4, 5))) == (0, 0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformPlacement(1.1), "min_overlap"),
        (lambda: UniformPlacement(-0.1), "min_overlap"),
        (lambda: UniformPlacement(decay=2), "decay"),
        (lambda: UniformPlacement(decay_every=0), "decay_every"),
        (lambda: UniformPlacement(near="here"), "near"),
        (lambda: UniformPlacement(max_attempts=0), "max_attempts"),
        (lambda: CenterPlacement(0), "core"),
        (lambda: CenterPlacement(1.2), "core"),
    ],
)
def test_arguments_outside_their_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
