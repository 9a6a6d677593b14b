# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import pytest
import torch

from monai_anomaly.networks.blocks import PlaceMemory


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(memory: PlaceMemory, *batches: torch.Tensor) -> PlaceMemory:
    for batch in batches:
        memory.fit_batch(batch)
    memory.finish()
    return memory


def slow_distances(healthy: torch.Tensor, image: torch.Tensor, window: int, metric: str) -> torch.Tensor:
    """Every place of one image (D, *G) against every healthy vector in its window, one pair at a time."""
    found = torch.full(image.shape[1:], math.inf)
    places = list(itertools.product(*(range(cells) for cells in image.shape[1:])))
    for here, there in itertools.product(places, places):
        if max(abs(a - b) for a, b in zip(here, there, strict=True)) > window:
            continue
        query = image[(slice(None), *here)].double()
        for vector in healthy.double():
            other = vector[(slice(None), *there)]
            distance = float(
                1 - query @ other / (query.norm() * other.norm()) if metric == "cosine" else (query - other).norm()
            )
            found[here] = min(float(found[here]), distance)
    return found


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("grid", "window"), [((5,), 1), ((5, 4), 0), ((6, 7), 2), ((3, 4), 9), ((3, 2, 4), 1)])
def test_distances_are_those_of_the_definition(grid: tuple[int, ...], window: int, metric: str) -> None:
    healthy, images = random(3, 6, *grid), random(2, 6, *grid, seed=1)
    memory = fitted(PlaceMemory(size=8, window=window, projected=None, metric=metric, bits=16), healthy)
    expected = torch.stack([slow_distances(healthy, image, window, metric) for image in images])
    # vectors are rounded to half precision: eleven bits
    torch.testing.assert_close(memory(images)[:, 0], expected, atol=2e-3, rtol=2e-3)


def test_a_projection_keeps_the_distances_about_as_they_are() -> None:
    spectrum = 0.8 ** torch.arange(48)[:, None, None]
    healthy, images = spectrum * random(8, 48, 4, 4), spectrum * random(8, 48, 4, 4, seed=1)
    for metric in ("cosine", "euclidean"):
        exact = fitted(PlaceMemory(projected=None, metric=metric, bits=16), healthy)(images)
        projected = fitted(PlaceMemory(size=9, projected=15, metric=metric, bits=16), healthy)
        assert projected.bank.shape == (4, 4, 9, 15)
        assert (projected(images) - exact).abs().max() < 0.05
        assert (projected(images) - exact).max() < 2e-3, "never larger, but for the rounding"
        assert projected(healthy).max() < 1e-2


def test_components_are_those_of_differences_at_the_same_place() -> None:
    where = 5 * random(1, 12, 4, 4, seed=2)  # places differ along other directions, and more, than images do
    healthy = where + 0.5 ** torch.arange(12)[:, None, None] * random(10, 12, 4, 4)
    memory = fitted(PlaceMemory(size=20, projected=3, metric="euclidean", bits=16), healthy)  # ten of twenty slots free
    pooled = torch.einsum("bdhw,behw->de", *2 * [healthy - healthy.mean(0)])
    _, vectors = torch.linalg.eigh(pooled.double())
    angles = memory.projection.double() @ vectors.flip(1)[:, :3]
    torch.testing.assert_close(angles.abs(), torch.eye(3).double(), atol=2e-2, rtol=0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("projected", [None, 11, 16])
def test_four_bits_are_nearly_as_good_as_sixteen(metric: str, projected: int | None) -> None:
    spectrum = 0.9 ** torch.arange(24)[:, None, None]
    healthy, images = spectrum * random(40, 24, 3, 3), spectrum * random(8, 24, 3, 3, seed=1)
    settings = {"size": 50, "window": 2, "projected": projected, "metric": metric}
    coarse, fine = (fitted(PlaceMemory(**settings, bits=bits), healthy) for bits in (4, 16))  # type: ignore[arg-type]
    assert coarse.bank.dtype == torch.uint8
    assert coarse.bank.shape[-1] == {None: 12, 11: 6, 16: 8}[projected]
    usual = fine(images)
    assert (coarse(images) - usual).abs().max() < 0.25 * usual.mean()
    assert (coarse(images) - usual).abs().mean() < 0.08 * usual.mean()
    # 1.15 % of the variance of either metric's squares: of the distances of vectors of length 1, or its root
    assert coarse(healthy).mean() < (0.03 if metric == "cosine" else 0.2) * usual.mean()


def test_slots_that_no_place_uses_are_not_searched() -> None:
    healthy, images = random(3, 6, 4, 4), random(2, 6, 4, 4, seed=1)
    few, many = fitted(PlaceMemory(size=3), healthy), fitted(PlaceMemory(size=300), healthy)
    assert int(many.num_used) == 3
    many.bank[..., 3:, :] = 0  # were they looked at, they would be found
    many.rest[..., 3:] = 2
    torch.testing.assert_close(many(images), few(images))
    loaded = PlaceMemory(size=300)
    loaded.load_state_dict(many.state_dict())
    torch.testing.assert_close(loaded(images), few(images))


def test_what_lies_outside_the_components_counts_by_its_length() -> None:
    plane = torch.nn.functional.pad(random(20, 2, 3, 3), (0, 0, 0, 0, 0, 6))  # two of eight numbers are not zero
    memory = fitted(PlaceMemory(size=20, window=0, projected=2, metric="euclidean", bits=16), plane)
    outside = plane[:1].clone()
    outside[:, 5] = 0.5
    torch.testing.assert_close(memory(outside), torch.full((1, 1, 3, 3), 0.5), atol=3e-3, rtol=0)


def test_the_default_takes_less_than_32_megabytes_on_a_grid_of_32_by_32() -> None:
    memory = PlaceMemory()
    memory.allocate(232, (32, 32))
    assert sum(buffer.numel() * buffer.element_size() for buffer in memory.buffers()) < 32e6


def test_no_more_is_kept_than_was_asked_for_and_nothing_twice() -> None:
    memory = PlaceMemory(size=5, window=0, projected=None)
    images = random(20, 6, 3, 3)
    memory.fit_batch(images)
    assert memory.sample.shape == (9, 5, 6) and bool(memory.priority.isfinite().all())
    before = {name: value.clone() for name, value in memory.state_dict().items() if name != "num_images"}
    memory.fit_batch(images[3:11])
    assert all(torch.equal(memory.state_dict()[name], value) for name, value in before.items())
    kept = (memory.sample.float()[:, :, None] - memory.sample.float()[:, None]).norm(dim=-1)
    assert bool((kept + torch.eye(5) > 1e-3).all()), "five different vectors at each place"


def test_neighbors_keep_different_images() -> None:
    images = random(64, 8, 1, 1).expand(-1, -1, 4, 4) + 1e-5 * random(64, 8, 4, 4, seed=1)
    memory = PlaceMemory(size=16, projected=None)
    memory.fit_batch(images)
    assert sum(len(place.unique(dim=0)) for place in memory.sample) == 16 * 16
    near = memory.sample.unflatten(0, (4, 4))[1:3, 1:3].flatten(0, 2)
    assert len(near.mul(256).round().unique(dim=0)) > 48, "four places hold nearly four times as many images as one"


def test_greedy_keeps_what_is_far_apart() -> None:
    crowd, outlier = 0.01 * random(30, 4, 2, 2) + 1, -torch.ones(1, 4, 2, 2)
    stream = torch.cat([crowd[:10], outlier, crowd[10:]])
    memory = fitted(PlaceMemory(size=2, window=0, selection="greedy", bits=16), *stream.split(7))
    assert memory(outlier).max() < 1e-6


def test_greedy_leaves_slots_free_where_nothing_is_new() -> None:
    memory = PlaceMemory(size=4, selection="greedy")
    memory.fit_batch(random(1, 4, 2, 2).expand(6, -1, -1, -1))
    assert memory.priority.isfinite().sum(1).tolist() == [1] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "got 0, 104 and 3"),
        ({"projected": 0}, "got 576, 0 and 3"),
        ({"window": -1}, "got 576, 104 and -1"),
        ({"bits": 8}, "got 'cosine', 'sample' and 8"),
        ({"metric": "manhattan"}, "'manhattan'"),
        ({"selection": "first"}, "'first'"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlaceMemory(**arguments)  # type: ignore[arg-type]


def test_features_of_another_grid_are_refused() -> None:
    memory = fitted(PlaceMemory(), random(2, 4, 3, 3))
    with pytest.raises(ValueError, match=r"\(4, 3, 3\) after B, got \(1, 4, 3, 4\)"):
        memory(random(1, 4, 3, 4))
    with pytest.raises(ValueError, match=r"one to three axes of places, got grid \(\)"):
        PlaceMemory().fit_batch(random(2, 4))
