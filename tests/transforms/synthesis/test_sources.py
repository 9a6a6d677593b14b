# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirst, LoadImaged, OneOf, RandFlip, ScaleIntensity, ScaleIntensityd
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from monai_anomaly.transforms.synthesis.anomaly import RandAnomaly
from monai_anomaly.transforms.synthesis.placements import FixedPlacement, UniformPlacement
from monai_anomaly.transforms.synthesis.placing import PatchBatch
from monai_anomaly.transforms.synthesis.plan import Frame, Patch
from monai_anomaly.transforms.synthesis.sources import (
    ImageSource,
    RandomSourceBox,
    SamePlace,
    match_channels,
    source_boxes,
)


def smooth(shape: tuple[int, ...], seed: int = 0, channels: int = 1) -> Tensor:
    noise = np.random.RandomState(seed).rand(channels, *shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, *[1.0] * len(shape)))).float()


def patch_of(size: tuple[int, ...], corner: tuple[int, ...] | None = None) -> Patch:
    return Patch(corner or (0,) * len(size), np.ones(size, dtype=bool))


def frame(image: Tensor, *sources: Any) -> Frame:
    return Frame(image, sources=list(sources))


# --- ImageSource ----------------------------------------------------------------------------------------------------


class Loader:
    """A deterministic transform that counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, item: Any) -> Any:
        self.calls += 1
        return {"image": torch.full((1, 4, 4), float(item)), "where": torch.ones(1, 4, 4)}


@pytest.mark.parametrize(("cache", "loads"), [(True, 2), (False, 5)])
def test_each_image_is_loaded_once(cache: bool, loads: int) -> None:
    loader = Loader()
    source = ImageSource([5, 6, 7], loader, cache=cache)
    assert len(source) == 3 and loader.calls == 0
    for index in (2, 0, 2, 2, 0):
        item = source[index]
        assert set(item) == {"image"} and float(item["image"].mean()) == index + 5
    assert loader.calls == loads


def test_items_may_be_tensors_or_dicts() -> None:
    images = [torch.rand(1, 4, 4) for _ in range(2)]
    assert torch.equal(ImageSource(images)[1]["image"], images[1])
    items = [{"x": image, "m": image > 0.5, "other": "y"} for image in images]
    item = ImageSource(items, image_key="x", foreground_key="m")[1]
    assert set(item) == {"image", "foreground"}
    assert torch.equal(item["image"], images[1]) and torch.equal(item["foreground"], images[1] > 0.5)


def test_files_are_loaded_by_the_transforms_given(tmp_path: Path) -> None:
    array = np.random.RandomState(0).randint(0, 255, (6, 5)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    transforms = [LoadImaged("image", ensure_channel_first=True, image_only=True), ScaleIntensityd("image", 0, 1)]
    source = ImageSource([{"image": str(tmp_path / "a.png")}], transforms)
    expected = (array.T - array.min()) / np.ptp(array)
    np.testing.assert_allclose(source[0]["image"][0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        RandFlip(),
        [ScaleIntensity(), RandFlip()],
        Compose([Compose([ScaleIntensity(), RandFlip()])]),
        OneOf([RandFlip()]),
    ],
)
def test_random_transforms_are_refused(transform: Any) -> None:
    with pytest.raises(ValueError, match="deterministic"):
        ImageSource([torch.zeros(1, 4, 4)], transform)


def test_deterministic_transforms_are_taken_whole() -> None:
    source = ImageSource([torch.rand(4, 5)], Compose([EnsureChannelFirst(channel_dim="no_channel"), ScaleIntensity()]))
    assert source[0]["image"].shape == (1, 4, 5) and float(source[0]["image"].max()) == 1


def test_no_items_are_refused() -> None:
    with pytest.raises(ValueError, match="no item"):
        ImageSource([])


# --- channels -------------------------------------------------------------------------------------------------------


def channel_of(values: Tensor, source: Tensor) -> int:
    found = [number for number, channel in enumerate(source) if torch.equal(channel, values)]
    assert len(found) == 1
    return found[0]


def test_as_many_channels_stay_in_order() -> None:
    source = torch.rand(3, 5, 4)
    assert torch.equal(match_channels(np.random.RandomState(0), source, 3), source)


def test_missing_channels_are_taken_from_the_source_at_random() -> None:
    source, rng = torch.rand(2, 5, 4), np.random.RandomState(0)
    counts = np.zeros((2, 2), dtype=int)
    for _ in range(400):
        result = match_channels(rng, source, 4)
        assert torch.equal(result[:2], source)
        counts[channel_of(result[2], source), channel_of(result[3], source)] += 1
    assert stats.chisquare(counts.flatten()).pvalue > 0.01


def test_of_too_many_channels_a_random_subset_is_taken() -> None:
    source, rng = torch.rand(3, 5, 4), np.random.RandomState(0)
    counts = np.zeros(3, dtype=int)
    for _ in range(300):
        chosen = [channel_of(channel, source) for channel in match_channels(rng, source, 2)]
        assert len(set(chosen)) == 2
        counts[chosen] += 1
    assert stats.chisquare(counts).pvalue > 0.01


def test_integers_become_floats_and_meta_data_goes() -> None:
    source = MetaTensor(torch.randint(0, 255, (1, 4, 4), dtype=torch.uint8))
    result = match_channels(np.random.RandomState(0), source, 2)
    assert result.dtype == torch.float32 and not isinstance(result, MetaTensor)
    assert torch.equal(result[0], source.as_tensor()[0].float())


def test_missing_channels_never_come_from_the_target() -> None:
    target = smooth((30, 28), 1, channels=3)
    sources = [smooth((30, 28), 2)]
    patch = RandomSourceBox()(np.random.RandomState(0), patch_of((9, 8)), frame(target, *sources))
    assert patch is not None and patch.source is not None
    assert all(torch.equal(channel, sources[0][0]) for channel in patch.source) and len(patch.source) == 3


# --- the same place -------------------------------------------------------------------------------------------------


def test_the_same_place_is_cut_out() -> None:
    image, sources = torch.rand(2, 12, 10), [torch.rand(2, 12, 10) for _ in range(3)]
    for seed in range(5):
        patch = SamePlace()(np.random.RandomState(seed), patch_of((4, 5), (3, 2)), frame(image, *sources))
        assert patch is not None
        box = source_boxes(PatchBatch(image[None], [0], [patch]))
        assert torch.equal(box[0], sources[patch.parameters["source"]][:, 3:7, 2:7])


def test_a_source_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="resize the sources"):
        SamePlace()(np.random.RandomState(0), patch_of((4, 5)), frame(torch.zeros(1, 12, 10), torch.zeros(1, 12, 11)))


@pytest.mark.parametrize("sources", [None, []])
def test_no_source_is_an_error_that_says_what_to_do(sources: Any) -> None:
    with pytest.raises(ValueError, match="give source="):
        SamePlace()(np.random.RandomState(0), patch_of((4, 5)), Frame(torch.zeros(1, 9, 9), sources=sources))


# --- rotated and scaled parts ---------------------------------------------------------------------------------------


def parts(size: tuple[int, ...], *sources: Any, count: int = 1, seed: int = 0, **kwargs: Any) -> list[Patch]:
    rng, where = np.random.RandomState(seed), frame(torch.zeros(1, *size), *sources)
    found = [RandomSourceBox(**kwargs)(rng, patch_of(size), where) for _ in range(count)]
    assert None not in found
    return [part for part in found if part is not None]


def covered(matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Extent of the box [0, P] in the source."""
    corners = np.array([matrix @ corner for corner in product(*[(0, n) for n in size])])
    return np.asarray(np.ceil(corners.max(0)) - np.floor(corners.min(0)))


@pytest.mark.parametrize(("shape", "size"), [((60, 50), (17, 12)), ((26, 24, 22), (9, 6, 8))])
def test_a_part_equals_an_affine_transform_of_scipy(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    sources = [smooth(shape, seed, 2) for seed in range(3)]
    for patch in parts(size, *sources, count=8):
        patch.source = sources[patch.parameters["source"]]
        matrix, offset = (np.asarray(patch.parameters[name], dtype=float) for name in ("matrix", "offset"))
        box = source_boxes(PatchBatch(torch.zeros(1, 2, *size), [0], [patch]))[0]
        for channel, found in zip(patch.source.numpy().astype(float), box, strict=True):
            expected = ndimage.affine_transform(channel, matrix, offset, size, order=3, mode="mirror")
            expected = np.clip(expected, channel.min(), channel.max())
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_parts_of_a_batch_equal_each_alone() -> None:
    sources = [smooth((50, 44), seed, 2) for seed in range(4)]
    patches = [parts(size, *sources, seed=n)[0] for n, size in enumerate([(9, 14), (16, 5), (3, 3), (12, 12)])]
    for patch in patches:
        patch.source = sources[patch.parameters["source"]]
    images = torch.zeros(4, 2, 16, 14)
    together = source_boxes(PatchBatch(images, range(4), patches))
    for row, patch in enumerate(patches):
        alone = source_boxes(PatchBatch(images, [row], [patch]))[0]
        a, b = patch.mask.shape
        np.testing.assert_allclose(together[row, :, :a, :b], alone, atol=1e-5)


def test_parts_overshoot_nothing() -> None:
    source = (torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    for patch in parts((15, 15), source, count=5):
        box = source_boxes(PatchBatch(torch.zeros(1, 1, 15, 15), [0], [patch]))
        assert float(box.min()) >= 0 and float(box.max()) <= 1


@pytest.mark.parametrize(
    ("shape", "size"), [((64, 50), (8, 7)), ((64, 50), (60, 45)), ((12, 20), (40, 44)), ((22, 24, 20), (9, 6, 8))]
)
def test_parts_lie_in_the_source(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    for patch in parts(size, torch.zeros(1, *shape), count=100):
        matrix, offset = patch.parameters["matrix"], np.asarray(patch.parameters["offset"])
        corners = np.array([matrix @ corner + offset for corner in product(*[(0, n) for n in size])])
        assert corners.min() >= -1e-9 and (corners.max(0) <= np.array(shape) + 1e-9).all()
        first, extent = (np.asarray(patch.parameters[name]) for name in ("first", "extent"))
        assert np.array_equal(extent, covered(matrix, size))
        assert (first >= 0).all() and (first + extent <= shape).all()
        assert np.array_equal(first, np.floor(corners.min(0) + 1e-9)) or np.allclose(first, corners.min(0), atol=1)


def test_large_patches_are_scaled_to_four_fifths_of_the_source() -> None:
    for patch in parts((40, 44), torch.zeros(1, 30, 50), count=60):
        extent = patch.parameters["extent"] / np.array([30, 50])
        assert extent.max() <= 0.8 + 2 / 30
        assert extent.max() >= 0.8 - 2 / 30


@pytest.mark.parametrize("dims", [2, 3])
def test_rotation_and_scale_follow_their_distributions(dims: int) -> None:
    matrices = np.array([p.parameters["matrix"] for p in parts((4,) * dims, torch.zeros(1, *[64] * dims), count=600)])
    scales = np.linalg.det(matrices) ** (1 / dims)
    turned = matrices / scales[:, None, None]
    np.testing.assert_allclose(
        turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(dims), turned.shape), atol=1e-9
    )
    enlarged = scales > 1
    assert stats.binomtest(int(enlarged.sum()), 600).pvalue > 0.01
    factors = np.where(enlarged, scales, 1 / scales) - 1
    assert stats.kstest(factors, "expon", (0, 0.1)).pvalue > 0.01
    if dims == 2:
        angles = np.arctan2(turned[:, 1, 0], turned[:, 0, 0])
        assert stats.kstest(angles, "uniform", (-np.pi / 4, np.pi / 2)).pvalue > 0.01


def test_without_a_foreground_the_place_is_uniform() -> None:
    found = parts((4, 4), torch.zeros(1, 9, 8), count=800, max_angle=0.0, scale=0.0)
    counts = np.zeros((6, 5), dtype=int)
    for patch in found:
        assert np.array_equal(patch.parameters["extent"], (4, 4))
        counts[tuple(np.asarray(patch.parameters["first"]).astype(int))] += 1
    assert stats.chisquare(counts.flatten()).pvalue > 0.01


def test_the_center_of_a_part_is_a_voxel_of_the_foreground() -> None:
    foreground = np.random.RandomState(0).rand(1, 50, 40) < 0.05
    item = {"image": torch.zeros(1, 50, 40), "foreground": torch.from_numpy(foreground)}
    for patch in parts((12, 9), item, count=80):
        first, extent = (np.asarray(patch.parameters[name]).astype(int) for name in ("first", "extent"))
        assert foreground[0][tuple(first + extent // 2)]
        middle = patch.parameters["matrix"] @ np.array([6, 4.5]) + patch.parameters["offset"]
        assert np.abs(middle - (first + extent // 2)).max() <= 1.5


def test_every_voxel_that_can_be_the_center_is_as_likely() -> None:
    foreground = np.zeros((1, 9, 8), dtype=bool)
    foreground[0, [0, 2, 4, 7, 8, 6], [3, 2, 6, 5, 7, 1]] = True
    item = {"image": torch.zeros(1, 9, 8), "foreground": foreground}
    # a box of 4 x 4 around its voxel 2, 2 must lie inside
    possible = [(2, 2), (4, 6), (7, 5)]
    counts = dict.fromkeys(possible, 0)
    for patch in parts((4, 4), item, count=300, max_angle=0.0, scale=0.0):
        counts[tuple((np.asarray(patch.parameters["first"]).astype(int) + 2).tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_a_source_without_a_possible_center_makes_way_for_another() -> None:
    empty = {"image": torch.zeros(1, 20, 20), "foreground": np.zeros((1, 20, 20))}
    good = {"image": torch.zeros(1, 20, 20), "foreground": np.ones((1, 20, 20))}
    assert {patch.parameters["source"] for patch in parts((5, 5), empty, empty, good, count=30, max_attempts=50)} == {2}
    where = frame(torch.zeros(1, 5, 5), empty)
    assert RandomSourceBox(max_attempts=4)(np.random.RandomState(0), patch_of((5, 5)), where) is None


def test_sources_are_drawn_alike() -> None:
    found = parts((4, 4), *[torch.zeros(1, 9, 8)] * 4, count=600)
    assert stats.chisquare(np.bincount([patch.parameters["source"] for patch in found], minlength=4)).pvalue > 0.01


def test_a_source_with_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="3D.*2D"):
        RandomSourceBox()(
            np.random.RandomState(0), patch_of((4, 5)), frame(torch.zeros(1, 9, 9), torch.zeros(1, 9, 9, 9))
        )


@pytest.mark.parametrize(
    "kwargs", [{"max_angle": -1}, {"scale": -1}, {"largest": 0}, {"largest": 1.1}, {"max_attempts": 0}]
)
def test_arguments_outside_their_range_are_refused(kwargs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RandomSourceBox(**kwargs)  # type: ignore[arg-type]


class Paste:
    """Replaces the box by the part of the source."""

    smallest = 1

    def __init__(self, box: Any) -> None:
        self.box = box

    def draw(self, rng: np.random.RandomState, patch: Patch, where: Frame) -> Patch | None:
        return self.box(rng, patch, where)

    def apply(self, batch: PatchBatch) -> Tensor:
        return source_boxes(batch)


def test_sources_of_a_dataset_reach_the_image() -> None:
    source = ImageSource([torch.full((1, 30, 30), value) for value in (0.6, 0.8)])
    whole = RandAnomaly(
        lambda rng, where: np.ones((6, 5), bool), UniformPlacement(), Paste(RandomSourceBox()), source=source
    )
    image = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    seen = set()
    for seed in range(12):
        result = whole.set_random_state(seed)(image)
        inside = result["support"]
        assert int(inside.sum()) == 30
        values = set(result["image"][inside].tolist())
        assert len(values) == 1
        seen |= {round(value, 3) for value in values}
    assert seen == {0.6, 0.8}


def test_a_source_of_the_call_is_used_where_there_is_no_dataset() -> None:
    whole = RandAnomaly(lambda rng, where: np.ones((8, 8), bool), FixedPlacement(), Paste(SamePlace()), clip=None)
    image, source = torch.zeros(1, 8, 8), torch.rand(1, 8, 8) + 0.1
    assert torch.equal(whole(image, source=source)["image"], source)
    with pytest.raises(ValueError, match="give source="):
        whole(image)
