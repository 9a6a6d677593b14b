# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch

from monai_anomaly.functional import content_priority, lowest_distinct, place_phases


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [True, False])
def test_priority_by_hand(length: bool) -> None:
    features, direction, phase = random(2, 5, 3), random(5, seed=1), torch.rand(3)
    found = content_priority(features, direction, phase, length)
    for image in range(2):
        for place in range(3):
            vector = features[image, :, place].tolist()
            norm = math.sqrt(sum(number**2 for number in vector))
            turns = sum(w * v for w, v in zip(direction.tolist(), vector, strict=True)) / norm
            turns += math.log(norm) if length else 0
            expected = (64 * turns + phase[place].item()) % 1
            assert found[image, place].item() == pytest.approx(expected, abs=1e-10)


def test_priorities_are_uniform_even_of_vectors_that_are_alike() -> None:
    features = 1 + 0.1 * random(4000, 16, 1)
    share = torch.histc(content_priority(features, random(16, seed=1)).float(), 8, 0, 1) / 4000
    torch.testing.assert_close(share, torch.full((8,), 0.125), rtol=0, atol=0.025)  # 5 standard errors


def test_rounding_hardly_moves_a_priority() -> None:
    features, direction = random(500, 64, 1), random(64, seed=1)
    moved = features * (1 + 1e-7 * random(500, 64, 1, seed=2))
    change = (content_priority(moved, direction) - content_priority(features, direction)).abs()
    assert torch.minimum(change, 1 - change).max() < 1e-4


def test_zeros_have_a_priority() -> None:
    assert bool(content_priority(torch.zeros(2, 5, 3), random(5)).isfinite().all())


@pytest.mark.parametrize("grid", [(64,), (8, 8), (4, 4, 4)])
def test_phases_are_spread_evenly(grid: tuple[int, ...]) -> None:
    phases = place_phases(grid).sort().values
    gaps = torch.cat([phases.diff(), phases[:1] + 1 - phases[-1:]])
    assert phases.shape == (64,) and gaps.max() < 4 / 64, "64 random numbers have gaps of about 5 / 64"


def test_golden_and_plastic_ratio() -> None:
    golden = (1 + math.sqrt(5)) / 2
    assert place_phases((3,)).tolist() == pytest.approx([0, 1 / golden, 2 / golden - 1])
    plastic = 1.3247179572447460
    assert place_phases((2, 2)).tolist() == pytest.approx([0, plastic**-2, 1 / plastic, 1 / plastic + plastic**-2 - 1])


def test_lowest_distinct_against_python() -> None:
    priorities = torch.randint(0, 12, (20, 15), generator=torch.Generator().manual_seed(0)).double()
    priorities[priorities > 9] = torch.inf
    values, index = lowest_distinct(priorities, 6)
    for row, kept, place in zip(priorities.tolist(), values.tolist(), index.tolist(), strict=True):
        expected = sorted(set(row) - {math.inf})[:6]
        assert kept == expected + [math.inf] * (6 - len(expected))
        assert [row[i] for i, value in zip(place, kept, strict=True) if value < math.inf] == expected


def test_the_lowest_of_a_union_are_those_of_its_parts() -> None:
    priorities = torch.rand(4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [lowest_distinct(part, 5)[0] for part in priorities.split(7, dim=1)]
    assert torch.equal(lowest_distinct(torch.cat(parts, 1), 5)[0], lowest_distinct(priorities, 5)[0])
