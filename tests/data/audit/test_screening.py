# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor

from monai_anomaly.data.audit import duplicates
from monai_anomaly.data.audit.baselines import nearest_distances, unit_vectors
from monai_anomaly.data.audit.duplicates import DuplicateSearch
from monai_anomaly.data.audit.image_digest import ItemDigest, digest_image, with_shared_thumbnails
from monai_anomaly.data.audit.screening import Screen, products_above, stacked
from monai_anomaly.transforms.loading import EIGHT_BIT


def vectors(number: int, size: int = 40, directions: int = 6, seed: int = 0) -> Tensor:
    """Unit vectors that vary in few directions, and a little in all others."""
    draw = torch.Generator().manual_seed(seed)
    few = torch.randn(number, directions, generator=draw) @ torch.randn(
        directions, size, generator=torch.Generator().manual_seed(99)
    )
    return F.normalize(few + 0.3 * torch.randn(number, size, generator=draw), dim=1)


def found(left: Tensor, right: Tensor, screen: Screen, least: Tensor) -> Tensor:
    """The inner products that are given, the others -2."""
    pairs, products = products_above((left, right), (screen.coordinates(left), screen.coordinates(right)), least)
    assert len(pairs.unique()) == len(pairs)
    table = torch.full((len(left) * len(right),), -2.0)
    table[pairs] = products
    return table.view(len(left), len(right))


@pytest.mark.parametrize("rank", [1, 5, 63])
@pytest.mark.parametrize("least", [-1.0, 0.2, 0.7, 0.95, 1.1])
def test_no_pair_is_missed(rank: int, least: float) -> None:
    left, right = vectors(60, seed=1), vectors(50, seed=2)
    table = found(left, right, Screen(vectors(30), rank), torch.full((60,), least))
    exact = left @ right.T
    wanted = exact >= least
    torch.testing.assert_close(table[wanted], exact[wanted], rtol=0, atol=1e-6)
    given = table > -2
    torch.testing.assert_close(table[given], exact[given], rtol=0, atol=1e-6)


def test_few_pairs_are_compared_whole_where_images_vary_in_few_directions() -> None:
    left, right = vectors(200, seed=1), vectors(300, seed=2)
    pairs, _ = products_above(
        (left, right), (Screen(vectors(100), 12).coordinates(left), Screen(vectors(100), 12).coordinates(right)),
        torch.full((200,), 0.95),
    )  # fmt: skip
    assert len(pairs) < 0.05 * 200 * 300


def test_each_row_has_a_limit_of_its_own_and_zero_vectors_are_allowed() -> None:
    left, right = vectors(9, seed=1), torch.cat([vectors(5, seed=2), torch.zeros(1, 40)])
    exact = left @ right.T
    least = exact.amax(1)
    table = found(left, right, Screen(vectors(30), 8), least)
    assert torch.equal(table.argmax(1), exact.argmax(1))


def pictures(number: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.randn(number, 1, 9, 9, generator=draw), size=64, mode="bicubic")[:, 0] * 50 + 100


@pytest.mark.parametrize("block", [7, 1024])
def test_a_screened_search_finds_what_comparing_all_pairs_finds(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    monkeypatch.setattr(duplicates, "_QUERY_VALUES", block * 1024)
    originals = pictures(40)
    near = [(1 - t) * originals[i].flip(0) + t * originals[i + 1] for i, t in enumerate([0, 0.1, 0.15, 0.2, 0.25, 0.3])]
    copies = torch.stack([*near, originals[3].rot90(), originals[3] * 0.5 + 9, *pictures(5, 1)])
    search = DuplicateSearch(torch.cat([originals, copies]))
    queries, references = torch.arange(40, 53), torch.arange(40)
    every, result = search.similarities(queries, references), search.find(queries, references)
    hits = every >= search.threshold
    assert 0 < hits.any(1).sum() < len(queries)
    assert torch.equal(result.matches, hits.sum(1))
    value, position = every.max(1)
    some = hits.any(1)
    assert torch.equal(result.reference, torch.where(some, position, -1))
    torch.testing.assert_close(result.similarity, torch.where(some, value, -1.0), rtol=0, atol=1e-6)


def test_the_most_similar_are_those_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    search = DuplicateSearch(pictures(30))
    queries, references = torch.arange(4), torch.arange(4, 30)
    expected = references[search.similarities(queries, references).topk(5).indices]
    monkeypatch.setattr(duplicates, "_BLOCK", 6)
    assert torch.equal(search.most_similar(queries, references, 5), expected)
    assert search.most_similar(queries, references[:3], 5).shape == (4, 3)


def test_nearest_distances_of_many_images_equal_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomaly.data.audit.baselines._BLOCK", 16)
    monkeypatch.setattr("monai_anomaly.data.audit.baselines._QUERY_VALUES", 10 * 64 * 64)
    training, images = pictures(70), torch.cat([pictures(20, 1), pictures(3)])
    whole = unit_vectors(images.flatten(1)) @ unit_vectors(training.flatten(1)).T
    expected = (2 - 2 * whole.amax(1).double()).clamp_min(0).sqrt()
    torch.testing.assert_close(nearest_distances(training, images), expected, rtol=0, atol=2e-3)


def digest(image: Tensor) -> ItemDigest:
    return ItemDigest(digest_image(MetaTensor(image[None], meta={EIGHT_BIT: True})))


def test_thumbnails_lie_in_one_tensor_and_are_used_from_there() -> None:
    images = pictures(5)
    digests = [digest(images[0]), digest(images[1]), ItemDigest(), digest(images[3]), digest(images[4])]
    kept = [item.image.thumbnail for item in with_shared_thumbnails(iter(digests), 5) if item.image]
    assert all(torch.equal(mine, images[i]) for mine, i in zip(kept, (0, 1, 3, 4), strict=True))
    assert stacked(kept[2:]).data_ptr() == kept[2].data_ptr(), "neighbors are not copied"
    across = stacked(kept)
    assert across.data_ptr() != kept[0].data_ptr() and torch.equal(across, images[[0, 1, 3, 4]])
    assert torch.equal(stacked(kept, torch.tensor([3, 0])), images[[4, 0]])
    assert torch.equal(stacked(images, torch.tensor([3, 0])), images[[3, 0]]) and stacked(images) is images


def test_thumbnails_of_another_shape_stay_as_they_are() -> None:
    flat, deep = digest(pictures(1)[0]), digest(torch.rand(32, 32, 32))
    kept = [item.image.thumbnail for item in with_shared_thumbnails(iter([flat, deep]), 2) if item.image]
    assert [tuple(thumbnail.shape) for thumbnail in kept] == [(64, 64), (32, 32, 32)]
