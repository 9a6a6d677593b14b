# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Parts that draw shapes; what a shape is, is tested beside the pure functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import stats

from monai_anomaly.transforms.synthesis.many_tasks import RandSmoothIntensity
from monai_anomaly.transforms.synthesis.plan import Frame
from monai_anomaly.transforms.synthesis.shapes import RandomBox, RandomDeformedShape, RandomRectangle


def frame(*shape: int, foreground: np.ndarray | None = None, spacing: tuple[float, ...] | None = None) -> Frame:
    return Frame(torch.zeros(1, *shape), foreground, None, spacing)


def sizes(part: RandomDeformedShape, where: Frame, count: int, seed: int = 0) -> np.ndarray:
    """Sizes of the aligned shapes (count, D)."""
    rng = np.random.RandomState(seed)
    return np.array([2 * part(rng, where).half for _ in range(count)])


def assert_clipped_gamma(drawn: np.ndarray, extent: float, low: int, high: int) -> None:
    """Compare sizes with int(clip((0.03 + Gamma(2, 0.1)) extent, low, high))."""
    values = np.arange(low, high + 1)
    edges = np.concatenate([[-np.inf], values[1:], [np.inf]])
    expected = np.diff(stats.gamma(2, loc=0.03, scale=0.1).cdf(edges / extent)) * len(drawn)
    observed = np.array([(drawn == value).sum() for value in values])
    assert observed.sum() == len(drawn)
    rare = expected < 5
    if rare.any():
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(observed, expected).pvalue > 0.005


def assert_uniform(drawn: np.ndarray, low: int, high: int) -> None:
    """Compare integers with U{low..high - 1}."""
    counts = np.array([(drawn == value).sum() for value in range(low, high)])
    assert counts.sum() == len(drawn)
    assert stats.chisquare(counts).pvalue > 0.005


def test_sizes_are_fractions_of_each_axis() -> None:
    drawn = sizes(RandomDeformedShape(), frame(40, 70), 1200)
    assert_clipped_gamma(drawn[:, 0], 40, 2, 32)
    assert_clipped_gamma(drawn[:, 1], 70, 4, 56)


def test_boxes_of_shapes_stay_within_their_bounds() -> None:
    part = RandomDeformedShape(gamma=(6, 0.1, 0.03))
    rng = np.random.RandomState(0)
    for shape in ((41, 30), (20, 14, 17)):
        upper = np.round(0.8 * np.array(shape))
        boxes = np.array([part(rng, frame(*shape)).mask.shape for _ in range(150)])
        assert (boxes <= upper).all() and boxes.min() >= 1
        assert (boxes == upper).any()


@pytest.mark.parametrize("kind", ["box", "ellipsoid"])
def test_kind_angle_and_shear_arrive(kind: str) -> None:
    rng = np.random.RandomState(0)
    straight = RandomDeformedShape(kind=kind, shear_std=0.0, max_angle=0.0)
    for _ in range(20):
        shape = straight(rng, frame(40, 40))
        assert shape.kind == kind and np.array_equal(shape.matrix, np.eye(2))
    turned = RandomDeformedShape(kind=kind, shear_std=0.0)(rng, frame(40, 40)).matrix
    np.testing.assert_allclose(turned @ turned.T, turned[:, 0] @ turned[:, 0] * np.eye(2), atol=1e-12)
    assert abs(turned[0, 1]) > 0


def test_bounds_in_voxels() -> None:
    drawn = sizes(RandomDeformedShape((5, 9), (2, 2, 1), unit="voxel"), frame(60, 30), 300)
    assert drawn.min() == 5 and drawn.max() == 9
    assert set(np.unique(drawn)) == {5, 6, 7, 8, 9}


def test_bounds_in_millimeters_follow_the_voxel_size() -> None:
    where = frame(60, 60, spacing=(0.5, 2.0))
    part = RandomDeformedShape((6, 20), (2, 5, 1), unit="mm")
    drawn = sizes(part, where, 500)
    assert drawn[:, 0].min() == 12 and drawn[:, 0].max() == 40
    assert drawn[:, 1].min() == 3 and drawn[:, 1].max() == 10
    free = stats.gamma(2, loc=1, scale=5)
    for axis, (voxel, low, high) in enumerate([(0.5, 12, 40), (2.0, 3, 10)]):
        counts = [(drawn[:, axis] == low).sum(), (drawn[:, axis] == high).sum()]
        expected = [free.cdf((low + 1) * voxel), free.sf(high * voxel)]
        for count, p in zip(counts, expected, strict=True):
            assert stats.binomtest(int(count), 500, p).pvalue > 0.005


DISK = {"bounds": (1, 99), "gamma": (2, 1e-9, 24.0 + 1e-6), "unit": "mm", "kind": "ellipsoid", "shear_std": 0.0}
"""A disk with a diameter of 24 mm."""


def test_a_disk_in_millimeters_is_one_in_the_image() -> None:
    part = RandomDeformedShape(**DISK)
    voxel, rng = np.array([0.5, 2.0]), np.random.RandomState(1)
    for _ in range(10):
        shape = part(rng, frame(90, 90, spacing=tuple(voxel)))
        assert np.array_equal(2 * shape.half, [48, 12])
        distance = np.linalg.norm((np.argwhere(np.ones_like(shape.mask)) + shape.low) * voxel, axis=1)
        assert np.array_equal(shape.mask.flatten(), distance <= 12 + 1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_millimeters_come_from_the_affine_of_the_image(turned: bool) -> None:
    task = RandSmoothIntensity(shape=RandomDeformedShape(**DISK), max_anomalies=1)
    voxel = np.array([0.5, 2.0])
    affine = torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0], dtype=torch.float64))
    if turned:  # the first axis of the image runs along the second of the patient
        affine = affine[[1, 0, 2, 3]]
    image = MetaTensor(torch.rand(1, 90, 90, generator=torch.Generator().manual_seed(0)), affine=affine)
    for seed in range(5):
        support = task.set_random_state(seed)(image)["support"][0].numpy()
        places = np.argwhere(support) * voxel
        middle = (places.min(0) + places.max(0)) / 2
        distance = np.linalg.norm(np.argwhere(np.ones_like(support)) * voxel - middle, axis=1)
        assert np.array_equal(support.flatten(), distance <= 12 + 1e-6)
    with pytest.raises(ValueError, match="mm.*needs a MetaTensor"):
        task(image.as_tensor())


def test_bounds_relative_to_the_largest_region() -> None:
    foreground = np.zeros((100, 80), dtype=bool)
    foreground[10:51, 20:40] = True  # 41 x 20
    foreground[70:75, 60:70] = True
    where = frame(100, 80, foreground=foreground)
    drawn = sizes(RandomDeformedShape(relative_to="foreground"), where, 1200)
    # the bounds are of the region, the distribution is of the image
    assert_clipped_gamma(drawn[:, 0], 100, 3, 33)
    assert_clipped_gamma(drawn[:, 1], 80, 2, 16)


def test_bounds_relative_to_a_tiny_region_differ_by_a_voxel() -> None:
    foreground = np.zeros((50, 50), dtype=bool)
    foreground[7, 7] = True
    drawn = sizes(RandomDeformedShape(relative_to="foreground"), frame(50, 50, foreground=foreground), 100)
    assert set(np.unique(drawn)) <= {1, 2} and drawn.max() == 2


def test_without_a_foreground_the_region_is_the_image() -> None:
    drawn = sizes(RandomDeformedShape(relative_to="foreground"), frame(40, 70), 1200)
    assert_clipped_gamma(drawn[:, 0], 40, 3, 32)  # the lower bound is rounded up in this edition
    assert_clipped_gamma(drawn[:, 1], 70, 5, 56)


def test_half_widths_are_uniform_integers_of_the_first_axis() -> None:
    rng = np.random.RandomState(0)
    masks = [RandomBox()(rng, frame(100, 60)) for _ in range(1500)]
    assert all(mask.all() and mask.shape[0] == mask.shape[1] for mask in masks)
    assert_uniform(np.array([mask.shape[0] / 2 for mask in masks]), 5, 20)


def test_axes_with_a_half_width_of_their_own() -> None:
    rng = np.random.RandomState(0)
    half = np.array([RandomBox(cube=False)(rng, frame(100, 40, 60)).shape for _ in range(1500)]) / 2
    for axis, (low, high) in enumerate([(5, 20), (2, 8), (3, 12)]):
        assert_uniform(half[:, axis], low, high)
    assert abs(stats.pearsonr(half[:, 0], half[:, 1])[0]) < 0.1


def test_half_widths_in_voxels_and_millimeters() -> None:
    rng = np.random.RandomState(0)
    half = np.array([RandomBox((3, 7), "voxel")(rng, frame(90, 40)).shape for _ in range(600)]) / 2
    assert_uniform(half[:, 0], 3, 7)
    assert np.array_equal(half[:, 0], half[:, 1])
    voxel = np.array([0.5, 2.0])
    boxes = [RandomBox((4, 16), "mm")(rng, frame(99, 99, spacing=tuple(voxel))).shape for _ in range(300)]
    millimeters = np.array(boxes) / 2 * voxel
    assert (np.abs(millimeters[:, 0] - millimeters[:, 1]) <= 1.25 + 1e-9).all()  # equal but for rounding
    assert stats.kstest(millimeters[:, 0], "uniform", (4, 12)).pvalue > 0.005
    apart = np.array(
        [RandomBox((4, 16), "mm", False)(rng, frame(99, 99, spacing=tuple(voxel))).shape for _ in range(300)]
    )
    assert_uniform(apart[:, 0] / 2, 8, 32)
    assert_uniform(apart[:, 1] / 2, 2, 8)


def test_a_box_has_at_least_two_voxels() -> None:
    rng = np.random.RandomState(0)
    assert {RandomBox((0.01, 0.02))(rng, frame(9, 9)).shape for _ in range(20)} == {(2, 2)}
    assert {RandomBox((0.2, 0.2))(rng, frame(20, 20)).shape for _ in range(20)} == {(8, 8)}


@pytest.mark.parametrize("distribution", ["log", "paper"])
def test_rectangles_by_area_and_aspect(distribution: str) -> None:
    rng = np.random.RandomState(1)
    part, where = RandomRectangle(distribution=distribution), frame(1500, 1000)
    masks = [part(rng, where) for _ in range(800)]
    assert all(mask[0, 0] and mask[-1, -1] for mask in masks) and masks[0].all()
    size = np.array([mask.shape for mask in masks], dtype=float)
    area, aspect = size.prod(1) / 1.5e6, size[:, 1] / size[:, 0]
    assert stats.kstest(area, "uniform", (0.02, 0.13)).pvalue > 0.005
    low, high = 0.3, 10 / 3
    if distribution == "log":
        assert stats.kstest(np.log(aspect), "uniform", (np.log(low), np.log(high / low))).pvalue > 0.005
    else:
        assert stats.binomtest(int((aspect < 1).sum()), 800).pvalue > 0.005
        assert stats.kstest(aspect[aspect < 1], "uniform", (low, 1 - low)).pvalue > 0.005
        assert stats.kstest(aspect[aspect > 1], "uniform", (1, high - 1)).pvalue > 0.005


def test_rectangles_are_no_larger_than_the_image() -> None:
    rng = np.random.RandomState(0)
    part = RandomRectangle((0.9, 1.0), (0.01, 100.0))
    found = [part(rng, frame(12, 50)).shape for _ in range(100)]
    assert max(h for h, _ in found) == 12 and max(w for _, w in found) == 50
    assert min(min(size) for size in found) >= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomDeformedShape((0.8, 0.06)), "bounds"),
        (lambda: RandomDeformedShape((-1, 0.5)), "bounds"),
        (lambda: RandomDeformedShape(unit="cm"), "unit"),
        (lambda: RandomDeformedShape(kind="star"), "kind"),
        (lambda: RandomDeformedShape(relative_to="moon"), "relative_to"),
        (lambda: RandomDeformedShape(gamma=(0, 1, 1)), "gamma"),
        (lambda: RandomDeformedShape(shear_std=-1), "shear_std"),
        (lambda: RandomBox((0.3, 0.2)), "half_width"),
        (lambda: RandomBox(unit="cm"), "unit"),
        (lambda: RandomRectangle((0.1, 1.1)), "area"),
        (lambda: RandomRectangle(aspect=(0, 1)), "aspect"),
        (lambda: RandomRectangle(distribution="normal"), "distribution"),
    ],
)
def test_arguments_outside_their_range_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
