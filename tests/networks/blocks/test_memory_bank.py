# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from monai_anomaly.networks.blocks import MemoryBank


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(memory: MemoryBank, healthy: torch.Tensor, size: int = 3) -> MemoryBank:
    for batch in healthy.split(size):
        memory.fit_batch(batch)
    memory.finish()
    return memory


def holding(bank: torch.Tensor, **arguments: int) -> MemoryBank:
    """A memory of exactly these vectors (M, D)."""
    return fitted(MemoryBank(**arguments), bank)


def rows(features: torch.Tensor) -> torch.Tensor:
    return features.flatten(2).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("grid", [(), (4,), (3, 4), (2, 2, 3)])
def test_distances_are_those_of_a_search_tree(grid: tuple[int, ...]) -> None:
    healthy, images = random(6, 5, *grid), random(3, 5, *grid, seed=1)
    found = fitted(MemoryBank(), healthy)(images)
    tree = KDTree(rows(healthy[..., None]).numpy())
    expected, _ = tree.query(rows(images[..., None]).numpy())
    assert found.shape == (3, 1, *grid)
    np.testing.assert_allclose(found.flatten(), expected, rtol=1e-5)


def test_banks_of_several_chunks_and_a_mean_far_from_zero() -> None:
    bank, queries = random(1100, 4) + 1000, random(50, 4, seed=1) + 1000
    expected, _ = KDTree(bank.double().numpy()).query(queries.double().numpy())
    np.testing.assert_allclose(holding(bank)(queries)[:, 0], expected, rtol=1e-4)


def test_the_bank_is_bounded_and_its_vectors_are_far_apart() -> None:
    crowd, far = 0.01 * random(200, 6), torch.eye(6) * 10
    memory = holding(torch.cat([crowd, far]), size=7)
    assert memory.bank.shape == (7, 6) and memory.num_used == 7
    assert memory(far).max() < 1e-5, "each of the six is kept beside one of the crowd"


def test_more_vectors_never_raise_a_distance() -> None:
    stream, queries = random(400, 5), random(30, 5, seed=1)
    distances = [holding(stream, size=size)(queries) for size in (5, 20, 80, 400)]
    assert all(bool((more <= fewer).all()) for fewer, more in zip(distances, distances[1:], strict=False))


def test_candidates_are_bounded() -> None:
    memory = MemoryBank(size=10, max_candidates=30)
    for batch in random(20, 5, 4, 4).split(5):
        memory.fit_batch(batch)
        assert memory.sample.shape == (30, 5)
    memory.finish()
    assert memory.sample.numel() == memory.priority.numel() == 0


def test_copies_leave_slots_free_that_count_for_nothing() -> None:
    bank = random(3, 4)
    memory = holding(bank.repeat(5, 1), size=10)
    assert memory.num_used == 3
    torch.testing.assert_close(memory.image_score(10 * bank), holding(bank, size=3).image_score(10 * bank))


def slow_score(bank: torch.Tensor, image: torch.Tensor, neighbors: int) -> float:
    """Roth et al. 2022, Eqs. 6 and 7, for one image of vectors (N, D)."""
    worst = max(image.tolist(), key=lambda query: min(math.dist(query, vector) for vector in bank.tolist()))
    nearest = min(bank.tolist(), key=lambda vector: math.dist(worst, vector))
    around = sorted(bank.tolist(), key=lambda vector: math.dist(nearest, vector))[:neighbors]
    weight = 1 - math.exp(math.dist(worst, nearest)) / sum(math.exp(math.dist(worst, vector)) for vector in around)
    return weight * math.dist(worst, nearest)


@pytest.mark.parametrize("neighbors", [2, 5, 40])
def test_image_score_is_that_of_the_paper(neighbors: int) -> None:
    bank, images = random(30, 4), random(3, 4, 3, 3, seed=1)
    memory = holding(bank, num_neighbors=neighbors)
    expected = [slow_score(bank, image.flatten(1).T, neighbors) for image in images]
    assert memory.image_score(images)[:, 0].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("count", "neighbors"), [(30, 0), (30, 1), (1, 9)])
def test_without_neighbors_the_score_is_the_largest_distance(count: int, neighbors: int) -> None:
    images = random(3, 4, 3, 3, seed=1)
    plain = holding(random(count, 4), num_neighbors=neighbors)
    torch.testing.assert_close(plain.image_score(images)[:, 0], plain(images).flatten(1).amax(1))


def test_one_search_gives_distances_and_score() -> None:
    bank, images = random(30, 4), random(3, 4, 3, 3, seed=1)
    for memory in (holding(bank), fitted(MemoryBank(compat="patchcore"), bank)):
        distances, score = memory.scored(images)
        assert torch.equal(distances, memory(images)) and torch.equal(score, memory.image_score(images))


def test_equidistant_neighbors_weigh_alike_however_far_they_are() -> None:
    bank = torch.eye(4)
    for scale in (1.0, 1000.0):
        query = torch.full((1, 4), scale)
        memory = holding(bank, num_neighbors=4)
        expected = 3 / 4 * (query - bank[:1]).norm()
        assert memory.image_score(query).item() == pytest.approx(expected.item(), rel=1e-3)


def test_published_code() -> None:
    bank, images = random(40, 4), random(3, 4, 3, 3, seed=1)
    paper, code = holding(bank, num_neighbors=0), fitted(MemoryBank(compat="patchcore"), bank)
    torch.testing.assert_close(code(images), paper(images).square())
    torch.testing.assert_close(code.image_score(images), paper.image_score(images).square())
    few = fitted(MemoryBank(size=5, compat="patchcore"), bank)
    assert bool((few.bank[:, None] == bank).all(2).any(1).all()), "vectors of the stream"


def test_the_first_center_of_the_published_code_is_far_from_ten_random_ones() -> None:
    crowd, far = 0.01 * random(50, 4), torch.full((1, 4), 5.0)
    memory = fitted(MemoryBank(size=1, compat="patchcore"), torch.cat([crowd, far]))
    assert torch.equal(memory.bank, far)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "got 0 and 32768"),
        ({"size": 9, "max_candidates": 8}, "got 9 and 8"),
        ({"projected": 0}, "got 0 and 9"),
        ({"num_neighbors": -1}, "got 128 and -1"),
        ({"compat": "anomalib"}, "'anomalib'"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryBank(**arguments)  # type: ignore[arg-type]


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 4, \*G\), got \(2, 5, 3\)"):
        holding(random(3, 4))(random(2, 5, 3))
