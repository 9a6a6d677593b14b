# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial import ConvexHull, QhullError

from monai_anomaly.functional.shapes import (
    DeformedShape,
    deform_shape,
    random_rotation,
    random_size,
    relative_radius,
    shear_and_rotate,
)

LARGEST = {2: (30, 26), 3: (14, 12, 13)}


def shapes(dims: int, count: int, kind: str = "either", seed: int = 0, mean: float = 2.0) -> list[DeformedShape]:
    """Shapes as many-tasks draws them, small enough for slow checks."""
    rng = np.random.RandomState(seed)
    extent = np.array([40, 34] if dims == 2 else [20, 16, 18])
    bounds = (np.maximum(np.round(0.06 * extent), 1), LARGEST[dims])
    gamma = (mean, 0.1, 0.03)
    return [deform_shape(rng, random_size(rng, extent, bounds, gamma), LARGEST[dims], kind) for _ in range(count)]


def belongs(shape: DeformedShape, point: np.ndarray) -> bool:
    """Whether a point, relative to the center of the shape, lies in it: the definition."""
    u = np.linalg.solve(shape.matrix, point)
    if shape.kind == "box":
        return all(abs(c) <= h + 1e-9 for c, h in zip(u, shape.half, strict=True))
    return sum((c / h) ** 2 for c, h in zip(u, shape.half, strict=True)) <= 1 + 1e-9


def radius(
    points: np.ndarray, center: np.ndarray, shape: DeformedShape, dtype: torch.dtype = torch.float64
) -> np.ndarray:
    """Relative radius of points (N, D) as seen from a center (D,)."""
    inverse = np.linalg.inv(shape.matrix)
    arrays = [
        torch.from_numpy(np.asarray(a, dtype=float)).to(dtype)[None] for a in (points, center, inverse, shape.half)
    ]
    return relative_radius(*arrays, torch.tensor([shape.kind == "box"]))[0].numpy()


def edge_distance(shape: DeformedShape, center: np.ndarray, way: np.ndarray) -> float:
    """March along a ray until it leaves the shape, then halve the last step again and again."""
    distance = 0.0
    while belongs(shape, center + (distance + 0.5) * way):
        distance += 0.5
    low, high = distance, distance + 0.5
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if belongs(shape, center + middle * way) else (low, middle)
    return low


@pytest.mark.parametrize(("dims", "count"), [(2, 60), (3, 12)])
def test_the_mask_is_the_definition_voxel_by_voxel(dims: int, count: int) -> None:
    found = shapes(dims, count)
    for shape in found:
        expected = np.zeros_like(shape.mask)
        for place in product(*map(range, shape.mask.shape)):
            expected[place] = belongs(shape, np.array(place) + shape.low)
        assert np.array_equal(shape.mask, expected)
    assert {shape.kind for shape in found} == {"box", "ellipsoid"}
    assert sum(shape.mask.any() for shape in found) > 0.9 * count


@pytest.mark.parametrize("dims", [2, 3])
def test_the_box_holds_the_mapped_corners_and_keeps_its_bounds(dims: int) -> None:
    largest = np.array(LARGEST[dims])
    at_bound = 0
    for shape in [*shapes(dims, 200), *shapes(dims, 200, mean=6.0)]:
        size = 2 * shape.half
        corners = np.array([shape.matrix @ c for c in product(*[((1 - s) / 2, (s - 1) / 2) for s in size])])
        low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
        assert np.array_equal(shape.low, low)
        assert np.array_equal(shape.mask.shape, np.minimum(high - low + 1, largest))
        assert min(shape.mask.shape) >= 1
        assert (high - low + 1 <= largest + 2).all()  # what is clamped is rounding, not half a shape
        at_bound += bool((np.array(shape.mask.shape) == largest).any())
    assert at_bound > 50


@pytest.mark.parametrize(("dims", "count"), [(2, 150), (3, 60)])
def test_masks_are_convex_and_so_star_shaped_as_seen_from_every_voxel(dims: int, count: int) -> None:
    checked = 0
    for shape in shapes(dims, count):
        try:
            hull = ConvexHull(np.argwhere(shape.mask))
        except (QhullError, ValueError):
            continue  # all voxels in one line or plane
        grid = np.argwhere(np.ones_like(shape.mask))
        inside = (grid @ hull.equations[:, :-1].T + hull.equations[:, -1] < -1e-6).all(1)
        assert shape.mask[tuple(grid[inside].T)].all()
        checked += 1
    assert checked > count / 2


@pytest.mark.parametrize("kind", ["box", "ellipsoid"])
@pytest.mark.parametrize("dims", [2, 3])
def test_distances_to_the_edge_equal_a_march_along_rays(dims: int, kind: str) -> None:
    rng = np.random.RandomState(7)
    checked = 0
    for shape in shapes(dims, 25, kind):
        inside = np.argwhere(shape.mask)
        if len(inside) == 0:
            continue
        center = inside[rng.randint(len(inside))] + shape.low
        ways = rng.normal(size=(6, dims))
        ways[0] = np.eye(dims)[0]
        ways[1] = shape.matrix[:, -1]  # along a wall of a box
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        edges = np.array([edge_distance(shape, center, way) for way in ways])
        keep = edges > 0.05
        part = rng.uniform(0.01, 1, len(ways))
        points = center + (part * edges)[:, None] * ways
        np.testing.assert_allclose(radius(points, center, shape)[keep], part[keep], atol=1e-5)
        np.testing.assert_allclose(radius(points, center, shape, torch.float32)[keep], part[keep], atol=2e-3)
        beyond = radius(center + (edges[:, None] + 0.3) * ways, center, shape)
        assert (beyond > 1).all()
        checked += int(keep.sum())
    assert checked > 80


@pytest.mark.parametrize("dims", [2, 3])
def test_the_relative_radius_is_zero_at_the_center_and_at_most_one_inside(dims: int) -> None:
    rng = np.random.RandomState(5)
    for shape in shapes(dims, 60):
        inside = np.argwhere(shape.mask)
        if len(inside) == 0:
            continue
        for center in inside[rng.randint(len(inside), size=3)] + shape.low:
            for dtype, much in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
                rho = radius(inside + shape.low, center, shape, dtype)
                assert np.isfinite(rho).all() and rho.min() == 0
                assert (rho > 0).sum() == len(inside) - 1
                on_the_wall = radius(center[None] * (1 + 1e-6), np.zeros(dims), shape)[0] > 0.999
                assert on_the_wall or rho.max() <= 1 + much


def test_shapes_of_a_batch_are_handled_one_by_one() -> None:
    found = [shape for shape in shapes(2, 30) if shape.mask.sum() > 30][:8]
    assert {shape.kind for shape in found} == {"box", "ellipsoid"}
    rng = np.random.RandomState(0)
    points = rng.normal(size=(8, 4, 3, 2))
    arrays = [points, np.zeros((8, 2)), [np.linalg.inv(s.matrix) for s in found], [s.half for s in found]]
    tensors = [torch.from_numpy(np.asarray(a)) for a in arrays]
    together = relative_radius(*tensors, torch.tensor([s.kind == "box" for s in found]))
    assert together.shape == (8, 4, 3)
    for row, shape in enumerate(found):
        alone = radius(points[row].reshape(-1, 2), np.zeros(2), shape)
        np.testing.assert_allclose(together[row].flatten(), alone, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_rotations_are_rotations(dims: int) -> None:
    rng = np.random.RandomState(1)
    for _ in range(50):
        matrix = random_rotation(rng, dims, np.pi / 2)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(dims), atol=1e-12)
        assert np.isclose(np.linalg.det(matrix), 1)
        assert np.abs(matrix - np.eye(dims)).max() > 0
    np.testing.assert_array_equal(random_rotation(rng, dims, 0.0), np.eye(dims))


@pytest.mark.parametrize("most", [np.pi / 2, np.pi / 4])
def test_angles_are_uniform(most: float) -> None:
    rng = np.random.RandomState(2)
    angles = [np.arctan2(m[1, 0], m[0, 0]) for m in (random_rotation(rng, 2, most) for _ in range(2000))]
    assert stats.kstest(angles, "uniform", (-most, 2 * most)).pvalue > 0.01


def test_a_rotation_in_3d_turns_in_all_three_planes() -> None:
    rng = np.random.RandomState(3)
    matrices = np.array([random_rotation(rng, 3, np.pi / 4) for _ in range(300)])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.std(matrices[:, a, b]) > 0.2


@pytest.mark.parametrize("dims", [2, 3])
def test_one_normal_shear_coefficient_an_axis(dims: int) -> None:
    rng = np.random.RandomState(4)
    matrices = np.array([shear_and_rotate(rng, dims, 0.2, 0.0) for _ in range(1500)])
    off = matrices - np.eye(dims)
    assert ((off != 0).sum(2) == 1).all()
    assert (np.diagonal(off, axis1=1, axis2=2) == 0).all()
    assert stats.kstest(off[off != 0], "norm", (0, 0.2)).pvalue > 0.01
    if dims == 3:  # either of the two other axes
        chosen = [(off[:, axis, (axis + 1) % 3] != 0).sum() for axis in range(3)]
        assert all(stats.binomtest(int(count), 1500).pvalue > 0.003 for count in chosen)
    assert np.array_equal(shear_and_rotate(rng, dims, 0.0, 0.0), np.eye(dims))


def test_kinds_are_drawn_alike() -> None:
    boxes = sum(shape.kind == "box" for shape in shapes(2, 1000))
    assert stats.binomtest(boxes, 1000).pvalue > 0.01
    for kind in ("box", "ellipsoid"):
        assert {shape.kind for shape in shapes(2, 20, kind)} == {kind}


def test_sizes_follow_the_clipped_gamma_distribution() -> None:
    rng = np.random.RandomState(6)
    extent, bounds = (60, 90), ((4, 9), (30, 40))
    sizes = np.array([random_size(rng, extent, bounds) for _ in range(4000)])
    assert np.issubdtype(sizes.dtype, np.integer)
    assert abs(stats.pearsonr(*sizes.T)[0]) < 0.06  # the axes are drawn by themselves
    for drawn, whole, low, high in zip(sizes.T, extent, *bounds, strict=True):
        values = np.arange(low, high + 1)
        # int() cuts off: a size s stands for [s, s + 1), the bounds for all that is beyond
        edges = np.concatenate([[-np.inf], values[1:], [np.inf]])
        expected = np.diff(stats.gamma(2, loc=0.03, scale=0.1).cdf(edges / whole)) * len(drawn)
        observed = np.array([(drawn == value).sum() for value in values])
        assert observed.sum() == len(drawn)
        assert stats.chisquare(observed, expected).pvalue > 0.01


def test_sizes_are_at_least_one_voxel() -> None:
    rng = np.random.RandomState(0)
    sizes = [random_size(rng, (3, 4, 5), ((0, 0, 0), (2, 3, 4))) for _ in range(100)]
    assert np.min(sizes) == 1


@pytest.mark.parametrize("spacing", [(1.0, 3.0), (0.5, 2.0, 1.0)])
def test_a_sphere_in_millimeters_stays_one_when_rotated(spacing: tuple[float, ...]) -> None:
    rng = np.random.RandomState(0)
    voxel, dims = np.array(spacing), len(spacing)
    radius_mm = 6 * max(spacing)
    size = 2 * radius_mm / voxel
    squeezed = 0
    for _ in range(20):
        shape = deform_shape(rng, size, (99,) * dims, "ellipsoid", shear_std=0.0, spacing=spacing)
        places = np.argwhere(np.ones_like(shape.mask)) + shape.low
        distance = np.linalg.norm(places * voxel, axis=1).reshape(shape.mask.shape)
        unsure = np.abs(distance - radius_mm) < 1e-6
        assert np.array_equal(shape.mask[~unsure], (distance <= radius_mm)[~unsure])
        assert shape.mask.sum() > 100
        plain = deform_shape(rng, size, (99,) * dims, "ellipsoid", shear_std=0.0)
        places = np.argwhere(plain.mask) + plain.low
        squeezed += bool(np.linalg.norm(places * voxel, axis=1).max() > 1.2 * radius_mm)
    assert squeezed > 10  # without the spacing it is no sphere


@pytest.mark.parametrize("spacing", [(1.0, 3.0), (0.5, 2.0, 1.0)])
def test_a_box_in_millimeters_keeps_right_angles_and_lengths_when_rotated(spacing: tuple[float, ...]) -> None:
    rng = np.random.RandomState(0)
    voxel = np.array(spacing)
    for _ in range(20):
        shape = deform_shape(rng, 12 / voxel, (99,) * len(voxel), "box", shear_std=0.0, spacing=spacing)
        edges = (shape.matrix * 2 * shape.half) * voxel[:, None]  # columns, in millimeters
        np.testing.assert_allclose(edges.T @ edges, 144 * np.eye(len(voxel)), atol=1e-9)


def test_shapes_too_large_are_scaled_down_as_they_are() -> None:
    for seed in range(20):
        large = deform_shape(np.random.RandomState(seed), np.array([40, 25]), (500, 500))
        small = deform_shape(np.random.RandomState(seed), np.array([40, 25]), (20, 18))
        assert max(large.mask.shape) > 20
        factor = small.matrix[0, 0] / large.matrix[0, 0]
        np.testing.assert_allclose(small.matrix, factor * large.matrix, atol=1e-12)
        assert np.isclose(factor, 1 / max(a / b for a, b in zip(large.mask.shape, (20, 18), strict=True)))
        assert small.kind == large.kind and np.array_equal(small.half, large.half)


def test_the_same_state_draws_the_same_shape() -> None:
    one, other = shapes(3, 5, seed=9), shapes(3, 5, seed=9)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.mask, b.mask) and np.array_equal(a.matrix, b.matrix) and a.kind == b.kind
