# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pictures import ball, box_of, patch_of, pictures
from scipy import ndimage

from monai_anomaly.transforms.synthesis.natural_parts import RandomPart, ellipses
from monai_anomaly.transforms.synthesis.nsa import MODES, RandNSA
from monai_anomaly.transforms.synthesis.plan import Frame, Plan

EVERY_MODE = pytest.mark.parametrize("mode", MODES)
LARGE: dict[str, Any] = {"half_width": (0.15, 0.3)}


def test_half_widths_follow_the_bounds_of_each_axis() -> None:
    frame = Frame(torch.zeros(1, 100, 200))
    rng = np.random.RandomState(0)
    sizes = np.array([RandomPart(((0.05, 0.1), (0.1, 0.2)))(rng, frame).shape for _ in range(400)])
    assert set(sizes[:, 0]) == set(range(10, 20, 2)) and set(sizes[:, 1]) == set(range(40, 80, 2))
    gamma = np.array([RandomPart((0.05, 0.2), (2, 0.03, 0.05))(rng, frame).shape for _ in range(2000)]) / 2
    assert gamma.min(0).tolist() == [5, 10] and gamma.max(0).tolist() == [20, 40]
    draws = np.clip((0.05 + np.random.RandomState(1).gamma(2, 0.03, 10**5)) * 200, 10, 40).astype(int)
    assert abs(gamma[:, 1].mean() - draws.mean()) < 0.6 and abs(gamma[:, 1].std() - draws.std()) < 0.6


def test_half_widths_in_voxels_and_in_millimeters() -> None:
    frame = Frame(torch.zeros(1, 50, 50), spacing=(2.0, 1.0))
    assert RandomPart((6, 6), unit="voxel")(np.random.RandomState(0), frame).shape == (12, 12)
    assert RandomPart((6, 6), unit="mm")(np.random.RandomState(0), frame).shape == (6, 12)


def test_resizing_keeps_the_aspect_and_the_bounds() -> None:
    own, source = pictures(1, 100, 100)
    method = RandNSA(half_width=(0.1, 0.2))
    scales = []
    for seed in range(200):
        patch = patch_of(method, own, source, seed)
        size, extent = np.array(patch.mask.shape), np.array(patch.parameters["extent"])
        scale = size / extent
        assert np.abs(size - scale.mean() * extent).max() <= 1.5  # rounding
        assert size.max() <= 40 and (size.min() >= 20 or size.max() == 40)
        scales.append(scale.mean())
    assert 0.65 < min(scales) < 0.8 and 1.2 < max(scales) < 1.35
    fixed = [patch_of(RandNSA(half_width=(0.1, 0.2), resize=False), own, source, seed) for seed in range(20)]
    assert all((np.array(p.mask.shape) == p.parameters["extent"]).all() for p in fixed)


def test_parts_at_the_border_of_the_source_are_cut_and_fit_into_the_image() -> None:
    own, source = pictures(1, 60, 60)
    cut = 0
    for seed in range(60):
        patch = patch_of(RandNSA(half_width=(0.2, 0.3), mode="swap"), own, source, seed)
        first, extent = patch.parameters["first"], patch.parameters["extent"]
        center_free = first > 0
        assert (first >= 0).all() and (first + extent <= 60).all()
        assert all(part.start >= 0 and part.stop <= 60 for part in box_of(patch))
        cut += not center_free.all()
    assert cut > 5


@EVERY_MODE
def test_the_mask_is_one_of_the_two_objects(mode: str) -> None:
    own, source = pictures(1, 64, 64)
    here, there = ball((64, 64), (30, 28), 20), ball((64, 64), (34, 40), 17)
    poisson = mode in ("source", "mixed")
    method = RandNSA(mode=mode, min_object=0.6, min_overlap=0.7, resize=True, half_width=(0.1, 0.25))
    bare = 0
    for seed in range(20):
        patch = patch_of(method, own, {"image": source, "foreground": torch.from_numpy(there)[None]}, seed, here)
        first, extent, size = patch.parameters["first"], patch.parameters["extent"], patch.mask.shape
        shown = there[tuple(map(slice, first, first + extent))]
        assert shown.mean() >= 0.6
        place = [np.floor((np.arange(n) + 0.5) * e / n).astype(int) for n, e in zip(size, extent, strict=True)]
        shown, own_object = shown[np.ix_(*place)], here[box_of(patch)]
        assert own_object.mean() >= 0.6 and (own_object & shown).sum() >= 0.7 * shown.sum()
        inside = np.zeros(size, dtype=bool)
        inside[1:-1, 1:-1] = True
        either = shown | own_object
        np.testing.assert_array_equal(patch.mask, inside if poisson else inside & either)
        bare += not either.all()
    assert bare > 3


@pytest.mark.parametrize("size", [(40, 64), (24, 30, 20)])
def test_ellipses(size: tuple[int, ...]) -> None:
    rng = np.random.RandomState(0)
    half = np.array(size) / 4
    volume = {2: np.pi, 3: 4 / 3 * np.pi}[len(size)]
    seen = 0
    for _ in range(30):
        one = ellipses(rng, np.array(size), half, 1)  # the half axes leave no choice
        if any(one.take(end, axis).any() for axis in range(len(size)) for end in (0, -1)):
            continue  # cut by the box
        seen += 1
        assert one.sum() == pytest.approx(volume * np.prod(half), rel=0.1)
        inertia = np.linalg.eigvalsh(np.cov(np.argwhere(one).T))
        np.testing.assert_allclose(np.sqrt(inertia * (len(size) + 2)), sorted(half), rtol=0.08)
    assert seen > 2
    masks = [ellipses(np.random.RandomState(seed), np.array(size), half / 2, 4) for seed in range(20)]
    counts = [ndimage.label(mask)[1] for mask in masks]
    assert max(counts) > 1 and all(mask.any() and not mask.all() for mask in masks)


def test_a_part_may_be_made_of_ellipses() -> None:
    own, source = pictures(1, 64, 64)
    method = RandNSA(mode="swap", num_ellipses=3, **LARGE)
    patch = patch_of(method, own, source)
    assert 0 < patch.mask.mean() < 0.8 and not patch.mask[0].any() and not patch.mask[:, -1].any()
    changed = (method.apply(own[None], [Plan([patch])])["image"][0, 0] != own[0]).numpy()
    assert not changed[box_of(patch)][~patch.mask].any() and changed.any()


def test_too_few_pixels_make_no_anomaly() -> None:
    own, source = pictures(1, 256, 256)
    made = [
        RandNSA([source], mode="swap", half_width=(half, half), unit="voxel").set_random_state(0)(own)["target"]
        for half in (4, 5)  # 36 and 64 pixels without the border
    ]
    assert made == [0, 1]


@EVERY_MODE
@pytest.mark.parametrize("where", ["image", "source", "both"])
@pytest.mark.parametrize("pixels", [0, 1])
def test_objects_of_a_pixel_or_none_leave_the_image_as_it_is(mode: str, where: str, pixels: int) -> None:
    own, source = pictures(1, 40, 40)
    full, spot = torch.ones(1, 40, 40), torch.zeros(1, 40, 40)
    spot[0, 20, 20] = pixels
    item = {"image": source, "foreground": full if where == "image" else spot}
    method = RandNSA([item], mode=mode, **LARGE).set_random_state(0)
    sample = method(own, full if where == "source" else spot)
    assert sample["target"] == 0 and not sample["label"].any() and torch.equal(sample["image"], own)


@EVERY_MODE
def test_a_part_larger_than_the_image_is_made_to_fit(mode: str) -> None:
    own, (_, source) = pictures(1, 24, 18)[0], pictures(1, 60, 70)
    for resize in (False, True):
        method = RandNSA(mode=mode, half_width=(0.9, 1.5), resize=resize)
        patch = patch_of(method, own, source)
        assert all(n <= m for n, m in zip(patch.mask.shape, (24, 18), strict=True))
        assert method.apply(own[None], [Plan([patch])])["target"].tolist() == [1]


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (4, 6)])
def test_tiny_images_do_not_fail(size: tuple[int, int]) -> None:
    own, source = (torch.rand(1, *size, generator=torch.Generator().manual_seed(i)) for i in range(2))
    for mode in MODES:
        sample = RandNSA([source], mode=mode).set_random_state(0)(own)
        assert torch.isfinite(sample["image"]).all()


def test_erosion_shrinks_the_mask() -> None:
    own, source = pictures(1, 64, 64)
    plain, eroded = (patch_of(RandNSA(erode=erode, **LARGE), own, source) for erode in (0, 3))
    assert plain.mask.shape == eroded.mask.shape
    kernel = np.ones((3, 3))
    wanted = plain.mask
    for _ in range(3):
        wanted = ndimage.binary_erosion(wanted, kernel)
    np.testing.assert_array_equal(eroded.mask, wanted)
    assert 0 < eroded.mask.sum() < plain.mask.sum()
    assert RandNSA([source], erode=40, **LARGE).set_random_state(0)(own)["target"] == 0


def test_a_part_that_is_not_resized_is_copied_voxel_by_voxel() -> None:
    own, source = pictures(1, 40, 60)
    method = RandNSA(mode="swap", **LARGE)
    for seed in range(5):
        patch = patch_of(method, own, source, seed)
        image = method.apply(own[None], [Plan([patch])])["image"][0]
        assert (np.array(patch.mask.shape) == patch.parameters["extent"]).all()
        there = tuple(slice(a, a + n) for a, n in zip(patch.parameters["first"], patch.mask.shape, strict=True))
        changed = image[0][box_of(patch)] != own[0][box_of(patch)]
        assert changed.sum() > 50
        np.testing.assert_allclose(image[0][box_of(patch)][changed], source[0][there][changed], atol=1e-5)
