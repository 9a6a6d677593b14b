# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from monai_anomaly.functional.noise import coarse_field, coarse_noise, fractal_noise, gradient_noise


def noise_at(point, size, intervals, gradients):
    """The textbook: dot products with the gradients of the surrounding lattice points, faded along each axis."""
    position = [p * r / n for p, r, n in zip(point, intervals, size, strict=True)]
    low = [int(np.floor(x)) for x in position]
    t = [x - a for x, a in zip(position, low, strict=True)]
    fade = [6 * s**5 - 15 * s**4 + 10 * s**3 for s in t]
    total = 0.0
    for corner in product((0, 1), repeat=len(point)):
        vector = gradients[(slice(None), *(a + c for a, c in zip(low, corner, strict=True)))]
        offset = [s - c for s, c in zip(t, corner, strict=True)]
        weight = np.prod([f if c else 1 - f for f, c in zip(fade, corner, strict=True)])
        total += weight * float(np.dot(vector, offset))
    return total


@pytest.mark.parametrize(
    ("size", "intervals"),
    [
        ((12, 8), (3, 2)),
        ((9, 14), (2.5, 3.7)),
        ((7, 5), (0.4, 1)),
        ((4, 6), (11, 6.5)),
        ((6, 5, 7), (2, 1.3, 3)),
        ((11,), (3.2,)),
    ],
)
def test_gradient_noise_is_the_textbook_formula(size, intervals):
    noise = gradient_noise(np.random.RandomState(3), size, intervals)
    gradients = np.random.RandomState(3).normal(size=(len(size), *(int(np.ceil(r)) + 1 for r in intervals)))
    gradients /= np.sqrt((gradients**2).sum(0))
    slow = [noise_at(point, size, intervals, gradients) for point in np.ndindex(*size)]
    np.testing.assert_allclose(noise.ravel(), slow, atol=1e-12)
    assert np.ptp(noise) > 0.01


def test_gradient_noise_is_zero_on_the_lattice_and_bounded():
    noise = gradient_noise(np.random.RandomState(0), (64, 48), (8, 4))
    assert np.abs(noise[::8, ::12]).max() < 1e-12
    assert np.abs(noise[4::8, 6::12]).min() > 0
    largest = max(np.abs(gradient_noise(np.random.RandomState(seed), (40, 40), (5, 5))).max() for seed in range(50))
    assert 0.5 < largest <= np.sqrt(0.5)


def test_gradient_noise_has_mean_zero_everywhere():
    fields = np.stack([gradient_noise(np.random.RandomState(seed), (8, 8), (1, 1)) for seed in range(4000)])
    assert (np.abs(fields.mean(0)) <= 5 * fields.std(0) / np.sqrt(4000)).all()


@pytest.mark.parametrize("shape", [*product(range(1, 6), repeat=2), *[(n, n, m) for n in range(1, 5) for m in (1, 4)]])
def test_fractal_noise_fills_zero_to_one_at_any_size(shape):
    for seed in range(8):
        noise = fractal_noise(np.random.RandomState(seed), shape)
        assert noise.shape == shape
        assert np.isfinite(noise).all()
        assert (noise.min(), noise.max()) in ((0.0, 1.0), (0.5, 0.5))


def test_fractal_noise_of_one_voxel_is_one_half_and_of_many_is_not_constant():
    assert fractal_noise(np.random.RandomState(0), (1, 1)) == 0.5
    fields = [fractal_noise(np.random.RandomState(seed), (60, 40)) for seed in range(20)]
    assert all(np.ptp(field) == 1 for field in fields)
    assert len({round(float(field.mean()), 6) for field in fields}) == 20


def test_coarse_noise_has_the_standard_deviation_asked_for():
    grid, shift = coarse_noise(np.random.RandomState(0), (50, 70), 4, 64, std=0.3)
    assert (grid.shape, grid.dtype, len(shift)) == ((4, 64, 64), np.float32, 2)
    assert grid.std() == pytest.approx(0.3, rel=0.02)
    assert np.abs(np.corrcoef(grid.reshape(4, -1)) - np.eye(4)).max() < 0.1


def test_coarse_noise_of_all_channels_alike_and_without_a_shift():
    grid, shift = coarse_noise(np.random.RandomState(0), (9, 9, 9), 3, (2, 3, 4), per_channel=False, roll=False)
    assert grid.shape == (3, 2, 3, 4)
    assert (grid == grid[:1]).all()
    assert shift == (0, 0, 0)


def test_shifts_reach_every_voxel_of_each_axis_by_itself():
    rng = np.random.RandomState(0)
    shifts = np.array([coarse_noise(rng, (3, 5), 1, 1)[1] for _ in range(400)])
    for axis, length in enumerate((3, 5)):
        counts = np.bincount(shifts[:, axis], minlength=length)
        assert len(counts) == length
        assert counts.min() > 400 / length * 0.7


def test_a_resolution_for_other_axes_is_refused():
    with pytest.raises(ValueError, match=r"each of 2 axes, got \(4, 4, 4\)"):
        coarse_noise(np.random.RandomState(0), (8, 8), 1, (4, 4, 4))


@pytest.mark.parametrize(("size", "resolution"), [((13, 9), (4, 5)), ((5, 7, 6), (3, 2, 4)), ((6, 6), (16, 16))])
def test_coarse_field_is_linear_interpolation_with_aligned_corners_then_a_roll_of_each_sample(size, resolution):
    rng = np.random.RandomState(1)
    grid = rng.normal(size=(3, 2, *resolution)).astype(np.float32)
    shifts = [tuple(int(rng.randint(n)) for n in size) for _ in range(3)]
    field = coarse_field(torch.from_numpy(grid), size, shifts)
    axes = [np.linspace(0, 1, n) for n in resolution]
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in size], indexing="ij"), axis=-1)
    for sample, channel in product(range(3), range(2)):
        slow = RegularGridInterpolator(axes, grid[sample, channel])(points)
        slow = np.roll(slow, shifts[sample], axis=tuple(range(len(size))))
        np.testing.assert_allclose(field[sample, channel], slow, atol=1e-5)


def test_coarse_field_has_the_full_deviation_on_the_points_and_less_between():
    grid, _ = coarse_noise(np.random.RandomState(0), (61, 61), 200, 16, std=0.2)
    field = coarse_field(torch.from_numpy(grid)[None], (61, 61), [(0, 0)])[0]
    torch.testing.assert_close(field[:, ::4, ::4], torch.from_numpy(grid), atol=1e-5, rtol=0)
    assert float(field[:, ::4, ::4].std()) == pytest.approx(0.2, rel=0.02)
    assert float(field[:, 2::4, 2::4].std()) == pytest.approx(0.1, rel=0.03)  # the mean of four


def test_coarse_field_of_one_voxel_takes_the_first_point():
    grid = torch.tensor([[[[3.0, 4.0], [5.0, 6.0]]]])
    assert float(coarse_field(grid, (1, 1), [(0, 0)])) == 3
