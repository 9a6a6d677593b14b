# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import torch

from monai_anomaly.functional import farthest_points


def chosen(points: torch.Tensor, count: int, valid: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    distances, sets = torch.cdist(points, points), torch.arange(len(points))
    valid = torch.ones(points.shape[:2], dtype=torch.bool) if valid is None else valid
    return farthest_points(lambda index: distances[sets, index], valid, count)


def points(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_against_the_definition() -> None:
    sets = points(5, 12, 3)
    index, gaps = chosen(sets, 7)
    for one, found, gap in zip(sets.tolist(), index.tolist(), gaps.tolist(), strict=True):
        centers, expected = [0], [math.inf]
        while len(centers) < 7:
            nearest = [min(math.dist(point, one[center]) for center in centers) for point in one]
            expected.append(max(nearest))
            centers.append(nearest.index(max(nearest)))
        assert found == centers
        torch.testing.assert_close(torch.tensor(gap), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_the_radius_is_at_most_twice_the_best_one() -> None:
    sets = points(6, 10, 2)
    index, _ = chosen(sets, 3)
    for one, centers in zip(sets, index.tolist(), strict=True):
        distances = torch.cdist(one, one)
        best = min(distances[:, list(some)].amin(1).max() for some in itertools.combinations(range(10), 3))
        assert distances[:, centers].amin(1).max() <= 2 * best


def test_gaps_do_not_rise_and_fewer_centers_are_the_first_of_more() -> None:
    sets = points(3, 20, 4)
    index, gaps = chosen(sets, 20)
    assert bool((gaps.diff(dim=1) <= 0).all()) and index.sort(1).values.tolist() == [list(range(20))] * 3
    assert torch.equal(chosen(sets, 6)[0], index[:, :6])


def test_what_is_not_there_is_not_chosen() -> None:
    sets = points(2, 6, 2)
    valid = torch.tensor([[False, True, True, True, False, True], [True] * 6])
    index, gaps = chosen(sets, 5, valid)
    assert index[0, :4].sort().values.tolist() == [1, 2, 3, 5] and index[0, 0] == 1
    assert index[0, 4] == 1 and gaps[0, 4] == 0 and gaps[1, 4] > 0


def test_copies_are_not_chosen() -> None:
    index, gaps = chosen(points(1, 2, 2).repeat(1, 3, 1), 4)
    assert set(index[0, :2].tolist()) == {0, 1}
    assert gaps[0, 2:].tolist() == [0, 0] and index[0, 2:].tolist() == [0, 0]
