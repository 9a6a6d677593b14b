# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from scipy import ndimage, stats
from torch import Tensor

from monai_anomaly.transforms.synthesis.anomaly import RandAnomaly
from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.corruptors import AlphaBlend
from monai_anomaly.transforms.synthesis.many_tasks import EDITIONS, RandSinkDeform, RandSmoothIntensity, many_tasks
from monai_anomaly.transforms.synthesis.mixture import RandAnomalyMixture
from monai_anomaly.transforms.synthesis.placements import FixedPlacement
from monai_anomaly.transforms.synthesis.shapes import RandomDeformedShape, RandomRectangle

CASES = [(1, (44, 40)), (3, (36, 40)), (1, (16, 18, 14))]
MAPS = ("image", "clean", "label", "support")


def textured(channels: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    noise = ndimage.gaussian_filter(np.random.RandomState(seed).rand(channels, *shape), (0, *[1.2] * len(shape)))
    return torch.from_numpy((noise - noise.min()) / np.ptp(noise)).float()


def images_of(channels: int, shape: tuple[int, ...], count: int = 6) -> Tensor:
    """Images that differ in their range, too."""
    return torch.stack([textured(channels, shape, seed) * (0.5 + 0.1 * seed) for seed in range(count)])


def assert_equal(batch: dict[str, Any], row: int, single: dict[str, Any]) -> None:
    assert json.loads(batch["params"][row]) == json.loads(single["params"])
    assert int(batch["target"][row]) == single["target"] and int(batch["task"][row]) == single["task"]
    for name in MAPS:
        assert batch[name][row].dtype == single[name].dtype
        if name == "support":
            # a change as large as the tolerance may fall on either side of it
            assert int((batch[name][row] != single[name]).sum()) <= 1
        else:
            difference = (batch[name][row] - single[name]).abs()
            assert float(difference.quantile(0.99)) < 1e-5 and float(difference.max()) < 2e-3


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(("channels", "shape"), CASES)
@pytest.mark.parametrize("task", range(5))
def test_a_batch_equals_the_array_version_image_by_image(
    task: int, channels: int, shape: tuple[int, ...], edition: str
) -> None:
    sources = [textured(channels, shape, seed) for seed in (21, 22, 23)]
    corruption = many_tasks(sources, sources, edition)[task]
    images = images_of(channels, shape)
    kept = images.clone()
    batch = BatchAnomaly(corruption).set_random_state(2)(images)
    assert torch.equal(images, kept) and torch.equal(batch["clean"], kept)
    corruption.set_random_state(2)
    for row, image in enumerate(images):
        assert_equal(batch, row, corruption(image))


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_mixture_in_a_batch_equals_the_array_version(edition: str) -> None:
    sources = [textured(1, (44, 40), seed) for seed in (21, 22, 23)]
    mixture = RandAnomalyMixture(many_tasks(sources, sources, edition), p_clean=0.2)
    images = images_of(1, (44, 40), 16)
    batch = BatchAnomaly(mixture).set_random_state(0)(images)
    assert len(set(batch["task"].tolist())) >= 4 and set(batch["target"].tolist()) == {0, 1}
    mixture.set_random_state(0)
    for row, image in enumerate(images):
        assert_equal(batch, row, mixture(image))


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("task", range(5))
def test_each_image_has_its_own_foreground(task: int, edition: str) -> None:
    sources = [textured(1, (44, 40), 21)]
    corruption = many_tasks(sources, sources, edition)[task]
    images = images_of(1, (44, 40))
    foreground = torch.zeros(6, 1, 44, 40)
    for row in range(6):
        foreground[row, 0, 5 * row : 5 * row + 18, 10:30] = 1
    batch = BatchAnomaly(corruption).set_random_state(1)(images, foreground)
    corruption.set_random_state(1)
    for row, image in enumerate(images):
        single = corruption(image, foreground[row])
        assert_equal(batch, row, single)
        assert single["target"] == 0 or bool((single["support"] & (foreground[row] > 0)).any())


def test_a_second_batch_goes_on_where_the_first_ended() -> None:
    corruption, images = RandSinkDeform(), images_of(1, (44, 40))
    transform = BatchAnomaly(corruption).set_random_state(5)
    first, second = transform(images[:2]), transform(images[2:])
    corruption.set_random_state(5)
    for row, image in enumerate(images):
        single = corruption(image)
        assert_equal(first if row < 2 else second, row if row < 2 else row - 2, single)


def test_results_do_not_depend_on_the_other_images() -> None:
    corruption = RandSmoothIntensity(clip="sample")
    images = images_of(2, (44, 40))
    others = images.clone()
    others[3:] = 100 * torch.rand_like(others[3:])
    one, other = (BatchAnomaly(corruption).set_random_state(0)(batch) for batch in (images, others))
    for name in MAPS:
        assert torch.equal(one[name][:3], other[name][:3])


# --- sources from the batch -----------------------------------------------------------------------------------------


def swap() -> RandAnomaly:
    """Replaces an image by another one."""
    whole = lambda rng, frame: np.ones(frame.shape, dtype=bool)  # noqa: E731
    return RandAnomaly(whole, FixedPlacement(), AlphaBlend((1.0, 1.0)), clip=None)


def test_sources_are_the_other_images_alike_and_never_the_own() -> None:
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 4, 4).contiguous()
    transform = BatchAnomaly(swap()).set_random_state(0)
    counts = np.zeros((5, 5), dtype=int)
    for _ in range(200):
        batch = transform(images)
        for row, result in enumerate(batch["image"]):
            counts[row, int(result.mean())] += 1
        assert torch.equal(batch["clean"], images)  # what is pasted is clean, too
    assert (np.diag(counts) == 0).all()
    assert stats.chisquare(counts[~np.eye(5, dtype=bool)]).pvalue > 0.01


def test_sources_come_with_their_foreground() -> None:
    sources = many_tasks()[0]
    images = images_of(1, (44, 40), 3)
    foreground = torch.zeros(3, 1, 44, 40)
    foreground[:, 0, 10:30, 12:30] = 1
    foreground[1, 0, 20, 20] = 1
    batch = BatchAnomaly(sources).set_random_state(3)(images, foreground)
    for drawn in map(json.loads, batch["params"]):
        for patch in drawn:
            middle = np.array(patch["first"]) + np.array(patch["extent"]) // 2
            assert 10 <= middle[0] < 30 and 12 <= middle[1] < 30


def test_blends_from_the_batch_equal_a_plan_with_the_other_images() -> None:
    corruption, images = many_tasks()[0], images_of(3, (36, 40))
    batch = BatchAnomaly(corruption).set_random_state(8)(images)
    rng = np.random.RandomState(8)
    for row, image in enumerate(images):
        others = [images[other] for other in range(len(images)) if other != row]
        plan = corruption.plan(rng, image, sources=others)
        single = corruption.apply(image[None], [plan])
        np.testing.assert_allclose(batch["image"][row], single["image"][0], atol=2e-3)
        assert json.loads(batch["params"][row]) == plan.describe()


def test_own_sources_go_before_the_batch() -> None:
    corruption = swap()
    corruption.source = [torch.full((1, 4, 4), 9.0)]
    batch = BatchAnomaly(corruption).set_random_state(0)(torch.rand(3, 1, 4, 4))
    assert torch.equal(batch["image"], torch.full((3, 1, 4, 4), 9.0))


def test_sources_of_different_sizes_work_in_a_batch_as_they_do_alone() -> None:
    sources = [textured(1, shape, 21) for shape in ((50, 40), (30, 60), (64, 64))]
    corruption, images = many_tasks(sources)[0], images_of(1, (44, 40))
    corruption.set_random_state(0)
    singles = [corruption(image) for image in images]
    batch = BatchAnomaly(corruption).set_random_state(0)(images)
    for row, single in enumerate(singles):
        assert_equal(batch, row, single)


def test_one_image_alone_has_no_source() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        BatchAnomaly(swap())(torch.rand(1, 1, 4, 4))


# --- what comes in and goes out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "shape"), CASES)
def test_the_result_is_a_batch(channels: int, shape: tuple[int, ...]) -> None:
    batch = BatchAnomaly(RandSmoothIntensity(task=4)).set_random_state(0)(images_of(channels, shape))
    assert batch["image"].shape == batch["clean"].shape == (6, channels, *shape)
    assert batch["label"].shape == batch["support"].shape == (6, 1, *shape)
    assert batch["target"].tolist() == [1] * 6 and batch["task"].tolist() == [4] * 6
    assert batch["target"].dtype == batch["task"].dtype == torch.int64
    assert len(batch["params"]) == 6 and all(json.loads(text) for text in batch["params"])


def test_integers_and_meta_tensors_are_taken() -> None:
    images = torch.randint(0, 255, (2, 1, 30, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    corruption = RandSmoothIntensity(value_range=(0, 255))
    plain = BatchAnomaly(corruption).set_random_state(0)(images)
    assert plain["image"].dtype == torch.float32
    meta = BatchAnomaly(corruption).set_random_state(0)(MetaTensor(images))
    assert all(torch.equal(plain[name], torch.as_tensor(meta[name])) for name in MAPS)


@pytest.mark.parametrize("bad", [torch.zeros(2, 1, 9), torch.full((2, 1, 9, 9), torch.nan)])
def test_bad_images_are_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="BatchAnomaly|NaN"):
        BatchAnomaly(RandSmoothIntensity())(bad)


class Flat(RandAnomaly):
    """Defined in 2D alone."""

    dims = (2,)


def test_volumes_are_refused_by_what_is_defined_in_2d() -> None:
    corruption = Flat(RandomRectangle(), FixedPlacement(), AlphaBlend())
    with pytest.raises(ValueError, match="defined for 2D"):
        corruption(torch.rand(1, 12, 12, 12))
    with pytest.raises(ValueError, match="defined for 2D"):
        BatchAnomaly(corruption)(torch.rand(2, 1, 12, 12, 12))


def test_each_image_of_a_batch_has_its_own_voxel_size() -> None:
    part = RandomDeformedShape((8, 16), (2, 2, 4), unit="mm")
    corruption = RandSmoothIntensity(shape=part)
    items = [
        {"image": MetaTensor(image, affine=torch.diag(torch.tensor([size, 1.0, 1.0, 1.0])))}
        for image, size in zip(images_of(1, (44, 40), 3), (0.5, 1.0, 2.0), strict=True)
    ]
    collated = list_data_collate(items)["image"]
    assert isinstance(collated, MetaTensor)
    batch = BatchAnomaly(corruption).set_random_state(0)(collated)
    corruption.set_random_state(0)
    for row, item in enumerate(items):
        assert_equal(batch, row, corruption(item["image"]))
