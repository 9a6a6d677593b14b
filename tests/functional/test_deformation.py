# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_anomaly.functional.deformation import push_exponent, radial_factor

MEAN_RADIUS = 20.0
SHARES = [0.001, 0.01, 0.1, 0.25, 0.4, 0.45]


def exponent_of(q: float) -> float:
    return push_exponent(q * math.sqrt(2) * MEAN_RADIUS, MEAN_RADIUS)


def read_at(rho: np.ndarray, exponent: float, sink: bool, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Relative radius that a voxel at ``rho`` takes its value from."""
    radii = torch.from_numpy(np.asarray(rho, dtype=float)).to(dtype)
    factor = radial_factor(radii[None], torch.tensor([exponent], dtype=dtype), torch.tensor([sink]))
    return (factor[0] * radii).numpy()


@pytest.mark.parametrize("q", SHARES)
def test_the_exponent_is_the_published_one(q: float) -> None:
    assert math.isclose(exponent_of(q), math.log(0.5 - q) / math.log(0.5 + q), rel_tol=1e-9)


@pytest.mark.parametrize("q", SHARES)
def test_the_middle_moves_by_the_push(q: float) -> None:
    exponent = exponent_of(q)
    np.testing.assert_allclose(read_at(np.array([0.5 - q]), exponent, True), 0.5 + q, atol=1e-9)
    np.testing.assert_allclose(read_at(np.array([0.5 + q]), exponent, False), 0.5 - q, atol=1e-9)


@pytest.mark.parametrize("q", [0.05, 0.2, 0.4])
def test_the_curve_is_the_push_away_from_the_diagonal(q: float) -> None:
    rho = np.linspace(0, 1, 20001)
    curve = read_at(rho, exponent_of(q), False)
    at = np.argmin(np.abs(rho + curve - 1))  # on the other diagonal, where the bend has its middle
    distance = (rho - curve)[at] / math.sqrt(2) * MEAN_RADIUS
    assert math.isclose(distance, q * math.sqrt(2) * MEAN_RADIUS, rel_tol=1e-3)


@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("q", SHARES)
def test_center_and_edge_stay_and_the_order_along_a_ray_is_kept(q: float, sink: bool) -> None:
    rho = np.linspace(0, 1, 2001)
    exponent = exponent_of(q)
    curve = read_at(rho, exponent, sink)
    assert curve[0] == 0 and math.isclose(curve[-1], 1, abs_tol=1e-12)
    assert (np.diff(curve) >= -1e-12).all()
    middle = (rho > 0.05) & (rho < 0.95)
    assert (curve[middle] > rho[middle]).all() if sink else (curve[middle] < rho[middle]).all()
    expected = 1 - (1 - rho) ** exponent if sink else rho**exponent
    np.testing.assert_allclose(curve, expected, atol=1e-5 * exponent)
    single = read_at(rho, exponent, sink, torch.float32)
    assert np.isfinite(single).all()
    np.testing.assert_allclose(single, expected, atol=1e-4)


def test_a_sink_is_a_source_seen_from_the_edge() -> None:
    rho = np.linspace(0.01, 0.99, 99)
    exponent = exponent_of(0.3)
    np.testing.assert_allclose(read_at(rho, exponent, True), 1 - read_at(1 - rho, exponent, False), atol=1e-9)


def test_no_push_is_no_warp() -> None:
    assert push_exponent(0.0, MEAN_RADIUS) == 1
    assert push_exponent(0.0, 0.0) == 1
    assert 1 < exponent_of(1e-4) < 1.001
    rho = np.linspace(0, 1, 11)
    for sink in (True, False):
        np.testing.assert_allclose(read_at(rho, 1.0, sink), rho, atol=1e-12)


def test_the_exponent_grows_with_the_push_up_to_58() -> None:
    exponents = [exponent_of(q) for q in np.linspace(0, 0.45, 40)]
    assert (np.diff(exponents) > 0).all()
    assert math.isclose(exponents[-1], 58.4, abs_tol=0.01)


@pytest.mark.parametrize("push", [-0.1, 1.001 * MEAN_RADIUS / math.sqrt(2), 2 * MEAN_RADIUS])
def test_a_push_that_would_turn_the_shape_inside_out_is_refused(push: float) -> None:
    with pytest.raises(ValueError, match="push must be in"):
        push_exponent(push, MEAN_RADIUS)


def test_shapes_of_a_batch_have_their_own_exponent_and_kind() -> None:
    rho = torch.rand((3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exponents, sinks = torch.tensor([1.5, 3.0, 20.0], dtype=torch.float64), torch.tensor([True, False, True])
    together = radial_factor(rho, exponents, sinks)
    for row in range(3):
        alone = radial_factor(rho[row : row + 1], exponents[row : row + 1], sinks[row : row + 1])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("sink", [True, False])
def test_gradients_are_finite_from_the_center_to_the_edge(sink: bool) -> None:
    rho = torch.tensor([[0.0, 1e-7, 0.3, 1.0, 1.2]], requires_grad=True)
    radial_factor(rho, torch.tensor([2.5]), torch.tensor([sink])).sum().backward()
    assert bool(torch.isfinite(rho.grad).all())
