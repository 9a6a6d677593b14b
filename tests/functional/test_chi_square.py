# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_anomaly.functional import chi_square_distance


def _slow(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), bins + 1)
    p, q = np.histogram(a, edges)[0] / len(a), np.histogram(b, edges)[0] / len(b)
    return 0.5 * sum((x - y) ** 2 / (x + y) for x, y in zip(p, q, strict=True) if x + y > 0)


def _slow_ddad(a: np.ndarray, b: np.ndarray) -> float:
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    p, q = (np.histogram((x - low) / (high - low), np.linspace(0, 1, 101), density=True)[0] for x in (a, b))
    return 0.5 * sum(((x - y) ** 2 + 1e-15) / (x + y + 1e-15) for x, y in zip(p, q, strict=True))


@pytest.mark.parametrize("bins", [2, 10, 50])
def test_equals_the_formula(bins: int) -> None:
    rng = np.random.default_rng(bins)
    a, b = rng.normal(size=300), rng.normal(0.7, 1.3, size=200)
    found = chi_square_distance(torch.tensor(a), torch.tensor(b), bins)
    assert found == pytest.approx(_slow(a, b, bins), rel=1e-9)
    assert chi_square_distance(b, a, bins) == pytest.approx(found)
    assert 0 < found < 1


def test_numbers_of_images_instead_of_shares() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=30), rng.normal(0.7, 1.3, size=200)
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), 11)
    p, q = np.histogram(a, edges)[0], np.histogram(b, edges)[0]
    expected = 0.5 * sum((x - y) ** 2 / (x + y) for x, y in zip(p, q, strict=True) if x + y > 0)
    assert chi_square_distance(a, b, 10, normalize=False) == pytest.approx(expected)
    assert chi_square_distance([1.0, 2.0], [5.0, 6.0, 6.0], normalize=False) == pytest.approx(5 / 2)
    with pytest.raises(ValueError, match="normalize=False does not go with compat='ddad'"):
        chi_square_distance(a, b, compat="ddad", normalize=False)


def test_numbers_keep_their_precision() -> None:
    assert chi_square_distance([1.0], [1 + 1e-9]) == 1, "not as equal as they are in single precision"


def test_ddad_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.gamma(2, size=150), 1 + rng.gamma(3, size=150)
    assert chi_square_distance(a, b, compat="ddad") == pytest.approx(_slow_ddad(a, b), rel=1e-9)
    assert chi_square_distance(a, b, bins=7, compat="ddad") == pytest.approx(_slow_ddad(a, b), rel=1e-9)
    # two bins are filled; each of the others adds one half
    assert chi_square_distance([0.0], [1.0], compat="ddad") == pytest.approx(100 + 98 / 2)


def test_limits() -> None:
    same = torch.rand(40, generator=torch.Generator().manual_seed(0))
    assert chi_square_distance(same, same) == 0
    assert chi_square_distance([1.0, 2.0], [5.0, 6.0]) == 1
    assert chi_square_distance([3.0, 3.0], [3.0]) == 0, "all scores equal"


def test_only_order_and_spacing_count() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(64), 0.3 + rng.random(64)
    assert chi_square_distance(4 * a - 8, 4 * b - 8) == pytest.approx(chi_square_distance(a, b))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([], [1.0]), "scores_healthy must hold at least one"),
        (([1.0], [math.inf]), "scores_anomalous must .* finite"),
        (([1.0], [2.0], 1), "bins must be at least 2, got 1"),
        (([1.0], [2.0], 50, "amae"), "compat must be None or 'ddad', got 'amae'"),
    ],
)
def test_wrong_arguments(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        chi_square_distance(*arguments)  # type: ignore[arg-type]
