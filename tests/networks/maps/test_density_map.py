# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from monai_anomaly.functional import local_mean, published_patches
from monai_anomaly.inferers import MapInferer
from monai_anomaly.networks.blocks import EmbeddingGaussian, FittedHead, MemoryBank, PlaceMemory
from monai_anomaly.networks.maps import DensityMap

DRAW = torch.Generator().manual_seed(0)


class Edges(nn.Module):
    """Two maps of fixed numbers, one as large as the image, one half."""

    num_channels = (2, 3)

    def forward(self, image: Tensor) -> list[Tensor]:
        pool = nn.functional.avg_pool2d if image.ndim == 4 else nn.functional.avg_pool3d
        half = pool(image, 2)
        return [torch.cat([image, 100 * image.square()], 1), torch.cat([half, half.cos(), half.sin()], 1)]


class Largest(nn.Module):
    """The largest number of a place, of those that were kept as the shift."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(()))
        self.calls: list[str] = []

    def fit_batch(self, features: Tensor) -> None:
        self.shift += features.sum()

    def merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.shift.copy_(torch.stack([state["shift"] for state in states]).sum())

    def finish(self) -> None:
        self.calls.append("finish")

    def forward(self, features: Tensor) -> Tensor:
        return features.amax(1, keepdim=True)


def images(*size: int, count: int = 3) -> Tensor:
    return torch.rand(count, 1, *size, generator=DRAW) * 2 - 1


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 8)])
def test_the_map_is_the_distance_averaged_enlarged_and_blurred(size: tuple[int, ...]) -> None:
    image = images(*size)
    plain = DensityMap(Edges(), Largest(), grid=size)
    joined = np.concatenate([m.numpy() for m in plain.extractor(image)][:1], axis=1)
    half = plain.extractor(image)[1].numpy()
    # on a grid as large as the image the finer map is as it is, and the coarser one lies between its centers
    zoomed = ndimage.zoom(half, (1, 1, *[2] * len(size)), order=1, mode="grid-constant", grid_mode=True)
    inner = (slice(None), slice(None), *[slice(1, -1)] * len(size))  # SciPy has another border
    expected = np.concatenate([joined, zoomed], axis=1).max(1, keepdims=True)
    np.testing.assert_allclose(plain(image)[inner], expected[inner], rtol=1e-5, atol=1e-6)
    smooth = DensityMap(Edges(), Largest(), grid=size, smoothing=3)(image)
    for index in range(len(image)):
        distance = plain(image)[index, 0].numpy()
        weight = ndimage.uniform_filter(np.ones(size), 3, mode="constant")
        mean = ndimage.uniform_filter(distance, 3, mode="constant") / weight
        np.testing.assert_allclose(smooth[index, 0], mean, rtol=1e-4, atol=1e-4)
    blurred = DensityMap(Edges(), Largest(), grid=size, blur=1.5)(image)
    for index in range(len(image)):
        expected = ndimage.gaussian_filter(plain(image)[index, 0].numpy(), 1.5, mode="nearest", truncate=4)
        np.testing.assert_allclose(blurred[index, 0], expected, rtol=0.02, atol=0.02 * expected.max())


def test_layers_of_unit_length_have_the_same_say() -> None:
    network = DensityMap(Edges(), Largest(), grid=[4, 4], unit_length=True)
    lengths = [part.norm(dim=1) for part in network.features(images(8, 8)).split([2, 3], dim=1)]
    for length in lengths:
        torch.testing.assert_close(length, torch.full_like(length, 0.5**0.5))


def test_fit_merge_and_finish_reach_the_head() -> None:
    one, two = (DensityMap(Edges(), Largest(), grid=[4, 4]) for _ in range(2))
    parts = images(8, 8), images(8, 8)
    one.fit_batch(parts[0]), two.fit_batch(parts[1])
    whole = DensityMap(Edges(), Largest(), grid=[4, 4])
    whole.merge([one.state_dict(), two.state_dict()])
    torch.testing.assert_close(whole.head.shift, one.head.shift + two.head.shift)
    whole.finish()
    assert whole.head.calls == ["finish"]


def memory_map() -> DensityMap:
    return DensityMap(Edges(), PlaceMemory(size=4, window=1, projected=None), grid=[4, 4], unit_length=True)


def test_a_checkpoint_fits_at_any_moment_of_the_fit_and_only_as_a_whole() -> None:
    healthy, image = images(8, 8), images(8, 8)
    network = memory_map()
    assert bool(network(image).isnan().all()), "before the fit there is nothing to say"
    for moment in range(3):
        fresh = memory_map()
        fresh.load_state_dict(network.state_dict())
        if moment < 2:
            for each in (network, fresh):
                each.fit_batch(healthy + moment) if moment == 0 else each.finish()
        state = fresh.state_dict()
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    torch.testing.assert_close(fresh(image), network(image))
    assert bool(network(healthy).max() < 2e-3) and bool(network(image).max() > 1e-3)
    other = DensityMap(Edges(), PlaceMemory(size=4, projected=None), grid=[2, 2])
    with pytest.raises(RuntimeError, match=r"head\.bank is 4x4x4x3 instead of 2x2x4x3"):
        other.load_state_dict(network.state_dict())


def test_the_inferer_gives_map_and_score() -> None:
    network = memory_map()
    network.fit_batch(images(8, 8))
    network.finish()
    result = MapInferer()(images(8, 8, count=2), network)
    assert {name: tuple(value.shape) for name, value in result.items()} == {
        "anomaly_map": (2, 1, 8, 8),
        "score": (2, 1),
    }
    torch.testing.assert_close(result["score"][:, 0], result["anomaly_map"].flatten(1).mean(1))


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 8)])
def test_features_know_their_neighborhood(size: tuple[int, ...]) -> None:
    image = images(*size)
    network = DensityMap(Edges(), Largest(), grid=size, neighborhood=3)
    fine, coarse = network.extractor(image)
    found = network.features(image)
    torch.testing.assert_close(found[:, :2], local_mean(fine, 3))
    enlarged = nn.functional.interpolate(
        local_mean(coarse, 3), size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False
    )
    torch.testing.assert_close(found[:, 2:], enlarged)


def test_features_of_the_published_patch_memory() -> None:
    network = DensityMap(Edges(), MemoryBank(compat="patchcore"), grid=[4, 4], neighborhood=3, compat="patchcore")
    image = images(8, 8)
    expected = published_patches(network.extractor(image), [4, 4], 3, 1024)
    assert torch.equal(network.features(image), expected)
    network.fit_batch(image)
    network.finish()
    assert network.head.bank.shape == (4096, 1024) and bool((network(image) == 0).all())


HEADS: dict[str, Callable[[], FittedHead]] = {
    "bank": lambda: MemoryBank(size=9, max_candidates=20, num_neighbors=3),
    "Gaussian": EmbeddingGaussian,
}


@pytest.mark.parametrize("name", HEADS)
def test_a_fit_that_goes_on_and_one_that_is_shared_end_as_an_unbroken_one(name: str) -> None:
    def fitted(batches: Sequence[Tensor], before: Mapping[str, Tensor] | None = None) -> DensityMap:
        network = DensityMap(Edges(), HEADS[name](), grid=[4, 4], neighborhood=3, own_score=True)
        if before is not None:
            network.load_state_dict(before)
        for batch in batches:
            network.fit_batch(batch)
        return network

    healthy = images(8, 8, count=12).split(3)
    resumed, merged = fitted(healthy[2:], fitted(healthy[:2]).state_dict()), fitted([])
    merged.merge([fitted(healthy[1:]).state_dict(), fitted(healthy[:1]).state_dict()])
    whole, image = fitted(healthy), images(8, 8)
    held = [sum(buffer.numel() for buffer in fitted(healthy[:count]).buffers()) for count in (2, 4)]
    assert held[0] == held[1], "whatever the number of images"
    for network in (whole, resumed, merged):
        network.finish()
    expected = whole.predict(image)
    for found, exact in ((resumed.predict(image), True), (merged.predict(image), name == "bank")):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_the_head_s_own_score_is_given_where_it_is_asked_for(name: str) -> None:
    head: Any = HEADS[name]()
    network = DensityMap(Edges(), head, grid=[4, 4], neighborhood=3, blur=1.0, own_score=True)
    image = images(8, 8)
    before = MapInferer(None)(image, network)
    assert before["score"].shape == (3, 1) and bool(before["score"].isnan().all()), "before the fit nothing is known"
    for _ in range(3):
        network.fit_batch(images(8, 8))
    network.finish()
    own = MapInferer(None)(image, network)
    torch.testing.assert_close(own["score"], head.scored(network.features(image))[1])
    network.own_score = False
    reduced = MapInferer()(image, network)
    torch.testing.assert_close(own["anomaly_map"], reduced["anomaly_map"])
    torch.testing.assert_close(reduced["score"][:, 0], reduced["anomaly_map"].flatten(1).mean(1))
    assert not torch.allclose(own["score"], reduced["score"], rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"smoothing": 2}, "smoothing must be an odd"),
        ({"neighborhood": 0}, "neighborhood must be an odd"),
        ({"blur": -1.0}, "blur must be 0"),
        ({"grid": []}, "one place"),
        ({"compat": "padim"}, "compat must be None, or 'patchcore' without unit_length, got 'padim' and"),
        ({"compat": "patchcore", "unit_length": True}, "got 'patchcore' and unit_length=True"),
        ({"own_score": True}, "own_score must be False for a Largest"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DensityMap(Edges(), Largest(), **{"grid": [4, 4], **wrong})
