# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The laws that every head keeps which is fitted to features without gradients."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from monai_anomaly.networks.blocks import (
    EmbeddingGaussian,
    FittedHead,
    GaussianHead,
    KernelDensity,
    MemoryBank,
    PlaceMemory,
)

MAKERS: dict[str, Callable[[], FittedHead]] = {
    "place": lambda: PlaceMemory(size=6, window=1, projected=4, bits=16),
    "place, four bits": lambda: PlaceMemory(size=6, window=1, projected=5),
    "place, Euclidean": lambda: PlaceMemory(size=6, window=1, projected=None, metric="euclidean", bits=16),
    "place, greedy": lambda: PlaceMemory(size=6, window=1, projected=4, selection="greedy", bits=16),
    "Gaussian": lambda: GaussianHead(num_features=5),
    "Gaussian, shrunk": lambda: GaussianHead(shrinkage="ledoit_wolf"),
    "Gaussian of embeddings": EmbeddingGaussian,
    "bank": lambda: MemoryBank(size=20, max_candidates=60, projected=4),
    "bank, as published": lambda: MemoryBank(size=20, max_candidates=60, projected=4, compat="patchcore"),
    "density": lambda: KernelDensity(bandwidth=0.7, size=9),
}
GRIDS = {name: () if name == "density" else (4, 3) for name in MAKERS}
GRIDS["place, Euclidean"], GRIDS["Gaussian, shrunk"] = (2, 1, 2), ()
# What is far apart depends on what was kept before: the greedy choice is the one whose stream matters.
ORDERLESS = [name for name in MAKERS if name != "place, greedy"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(name: str, count: int = 16, seed: int = 0) -> torch.Tensor:
    return random(count, 8, *GRIDS[name], seed=seed)


def fed(head: FittedHead, batches: Sequence[torch.Tensor]) -> FittedHead:
    for batch in batches:
        head.fit_batch(batch)
    return head


def done(head: FittedHead) -> FittedHead:
    head.finish()
    return head


def assert_same_fit(one: FittedHead, other: FittedHead, tolerance: float = 1e-6) -> None:
    state = other.state_dict()
    assert state.keys() == one.state_dict().keys()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(
            value, state[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", ORDERLESS)
@pytest.mark.parametrize("seed", range(3))
def test_order_and_batch_size_do_not_change_what_is_fitted(name: str, seed: int) -> None:
    healthy = images(name)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    whole = done(fed(MAKERS[name](), [healthy]))
    parts = done(fed(MAKERS[name](), healthy[order].split((1, 5, 7)[seed])))
    # Moments are summed in another order; the vectors of a sample are the same ones, and rounded alike.
    assert_same_fit(whole, parts, tolerance=1e-6 if "Gaussian" in name else 0)


@pytest.mark.parametrize("name", MAKERS)
def test_two_halves_merged_are_one_fit(name: str) -> None:
    healthy = images(name)
    whole = done(fed(MAKERS[name](), [healthy]))
    halves = [fed(MAKERS[name](), healthy[:10].split(4)), fed(MAKERS[name](), healthy[10:].split(4))]
    idle = MAKERS[name]()
    states = [halves[0].state_dict(), idle.state_dict(), halves[1].state_dict()]
    for head in (halves[0], idle):
        head.merge(states)
    assert_same_fit(done(halves[0]), done(idle), tolerance=0)
    assert int(idle.num_images) == 16
    if name in ORDERLESS:
        assert_same_fit(whole, idle)


@pytest.mark.parametrize("name", MAKERS)
def test_a_fit_goes_on_after_it_was_stored(name: str) -> None:
    healthy = images(name).split(4)
    file = io.BytesIO()
    torch.save(fed(MAKERS[name](), healthy[:2]).state_dict(), file)
    file.seek(0)
    resumed = MAKERS[name]()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert_same_fit(done(fed(resumed, healthy[2:])), done(fed(MAKERS[name](), healthy)), tolerance=0)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("allocated", [False, True])
def test_a_finished_fit_is_loaded_whole(name: str, allocated: bool) -> None:
    head, fresh = done(fed(MAKERS[name](), [images(name)])), MAKERS[name]()
    if allocated:
        fresh.allocate(8, GRIDS[name])
        shapes = {name: value.shape for name, value in head.state_dict().items()}
        assert {name: value.shape for name, value in fresh.state_dict().items()} == shapes
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(fresh(images(name, seed=1)), head(images(name, seed=1)))


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_of_another_shape_is_refused_by_an_allocated_head(name: str) -> None:
    other = MAKERS[name]()
    other.allocate(11, GRIDS[name])
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(done(fed(MAKERS[name](), [images(name)])).state_dict())


@pytest.mark.parametrize("name", MAKERS)
def test_memory_does_not_grow_with_the_number_of_images(name: str) -> None:
    head, sizes = MAKERS[name](), []
    for seed in range(3):
        head.fit_batch(images(name, seed=seed))
        sizes.append(sum(buffer.numel() for buffer in head.buffers()))
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("name", ["place", "place, Euclidean", "place, greedy", "bank", "bank, as published"])
def test_what_is_in_the_bank_has_distance_zero(name: str) -> None:
    healthy = images(name, count=5)
    head = MAKERS[name]() if "place" in name else MemoryBank(compat="patchcore" if "published" in name else None)
    distances = done(fed(head, healthy.split(2)))(healthy)
    # Two vectors of half precision: 1 - their product in float32, or the length of a difference rounded to 11 bits.
    assert distances.max() < (1e-6 if "Euclidean" not in name else 1e-2)
    assert done(fed(MAKERS[name](), healthy.split(2)))(images(name, seed=1)).min() >= 0


@pytest.mark.parametrize("name", ["Gaussian", "Gaussian, shrunk"])
def test_an_orthogonal_change_of_features_changes_no_gaussian_distance(name: str) -> None:
    healthy, queries = images(name, count=40) * 3, images(name, seed=1)
    turn = torch.linalg.qr(random(8, 8).double())[0]

    def distances(change: torch.Tensor) -> torch.Tensor:
        head = GaussianHead(shrinkage="ledoit_wolf" if "shrunk" in name else None)
        for batch in healthy.split(9):
            head.fit_batch(torch.einsum("de,be...->bd...", change, batch.double()))
        return done(head)(torch.einsum("de,be...->bd...", change, queries.double()).float())

    torch.testing.assert_close(distances(turn), distances(torch.eye(8).double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [4.0, 0.3])
def test_scaled_features_scale_the_distances_to_neighbors(scale: float) -> None:
    for name, head in {
        "place, Euclidean": lambda: PlaceMemory(window=1, projected=None, metric="euclidean", bits=16),
        "bank": MemoryBank,
    }.items():
        healthy, queries = images(name), images(name, seed=1)
        plain, scaled = done(fed(head(), [healthy])), done(fed(head(), [scale * healthy]))
        tolerance = 2e-3 if name != "bank" and scale == 0.3 else 1e-6  # half precision, but for powers of two
        torch.testing.assert_close(scaled(scale * queries), scale * plain(queries), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MAKERS)
def test_one_image_does_not_depend_on_the_others_of_its_batch(name: str) -> None:
    head, queries = done(fed(MAKERS[name](), [images(name)])), images(name, seed=1)
    alone = torch.cat([head(query) for query in queries.split(1)])
    torch.testing.assert_close(head(queries), alone, rtol=1e-5, atol=1e-6)


TRACED = [
    "place",
    "place, four bits",
    "place, Euclidean",
    "Gaussian",
    "Gaussian of embeddings",
    "bank",
    "density",
    "image score",
]


class ImageScore(torch.nn.Module):
    def __init__(self, head: MemoryBank) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head.image_score(features)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRACED)
def test_it_is_traced_and_exported_for_any_batch_size(name: str) -> None:
    scores = name == "image score"
    name = "bank" if scores else name
    head: torch.nn.Module = done(fed(MAKERS[name](), [images(name)])).eval()
    head = ImageScore(head) if scores and isinstance(head, MemoryBank) else head
    example, queries = images(name, count=3, seed=1), images(name, count=5, seed=2)
    expected = head(queries)
    torch.testing.assert_close(torch.jit.trace(head, example)(queries), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(make_fx(head)(queries)(queries), expected, rtol=1e-5, atol=1e-6)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(head, (example,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(queries), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_the_order_of_calls(name: str) -> None:
    head, healthy = MAKERS[name](), images(name)
    with pytest.raises(RuntimeError, match="is not fitted: call fit_batch and finish"):
        head(healthy)
    with pytest.raises(RuntimeError, match="saw no image: call fit_batch"):
        head.finish()
    fed(head, [healthy]).finish()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.finish()
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    with pytest.raises(RuntimeError, match="is fitted already: fit a new one"):
        head.fit_batch(healthy)
    with pytest.raises(RuntimeError, match="merge before finish"):
        MAKERS[name]().merge([head.state_dict()])


@pytest.mark.parametrize("name", MAKERS)
def test_no_gradient_is_kept_and_no_random_number_is_drawn(name: str) -> None:
    before = torch.random.get_rng_state()
    head = done(fed(MAKERS[name](), [images(name).requires_grad_()]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(buffer.requires_grad for buffer in head.buffers())


def test_allocate_refuses_what_is_not_positive() -> None:
    with pytest.raises(ValueError, match=r"got 0 and \(2,\)"):
        PlaceMemory().allocate(0, (2,))
    with pytest.raises(ValueError, match=r"features must be \(B, D, \*G\)"):
        PlaceMemory().fit_batch(torch.zeros(3))
