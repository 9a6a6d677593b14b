# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Resize, ScaleIntensity
from scipy import ndimage
from skimage.morphology import disk
from torch import Tensor

from monai_anomaly.functional.blending import poisson_blend
from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.natural_parts import RandomPart, ellipses
from monai_anomaly.transforms.synthesis.nsa import MODES, ChangeLabel, RandNSA, RandNSAd
from monai_anomaly.transforms.synthesis.plan import Frame, Patch, Plan

GREY = 1 / 255
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
EVERY_LABEL = pytest.mark.parametrize("label", ["logistic", "binary", "factor", "intensity"])
SIZES = pytest.mark.parametrize("shape", [(1, 48, 48), (3, 40, 56), (2, 24, 28, 20)])
LARGE: dict[str, Any] = {"half_width": (0.15, 0.3)}


def pictures(*shape: int, number: int = 2, seed: int = 0) -> list[Tensor]:
    """Smooth images of the same range in [0, 1]."""
    rng = np.random.RandomState(seed)
    images = ndimage.gaussian_filter(rng.rand(number, *shape), [0, 0, *[1.5] * (len(shape) - 1)])
    low, high = (getattr(images, name)(axis=tuple(range(2, images.ndim)), keepdims=True) for name in ("min", "max"))
    return list(torch.from_numpy(((images - low) / (high - low)).astype(np.float32)))


def ball(size: tuple[int, ...], center: tuple[float, ...], radius: float) -> np.ndarray:
    """An object."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    return np.asarray(np.linalg.norm(grid - np.array(center), axis=-1) <= radius)


def patch_of(method: RandNSA, own: Tensor, source: Any, seed: int = 0, foreground: np.ndarray | None = None) -> Patch:
    """The only part that is drawn."""
    plan = method.plan(np.random.RandomState(seed), own, None if foreground is None else foreground[None], [source])
    (patch,) = plan.patches
    return patch


def part_by_splines(patch: Patch) -> np.ndarray:
    """What goes in, (C, *P): the foreign image at the centers of the resized part's voxels."""
    first, extent = patch.parameters["first"], patch.parameters["extent"]
    grid = np.stack(np.meshgrid(*map(np.arange, patch.mask.shape), indexing="ij"))
    extra = [1] * patch.mask.ndim
    ratio = (np.array(extent) / patch.mask.shape).reshape(-1, *extra)
    points = (grid + 0.5) * ratio - 0.5 + np.array(first).reshape(-1, *extra)
    assert patch.source is not None
    channels = patch.source.numpy().astype(float)
    parts = [ndimage.map_coordinates(x, points, order=3, mode="mirror").clip(x.min(), x.max()) for x in channels]
    return np.stack(parts)


def box_of(patch: Patch) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(patch.corner, patch.mask.shape, strict=True))


def blended(own: Tensor, patch: Patch, mode: str) -> np.ndarray:
    """The image after one part, slowly."""
    part, result, box = part_by_splines(patch), own.numpy().astype(float), box_of(patch)
    if mode in ("source", "mixed"):
        result, _ = poisson_blend(result, part, patch.mask, patch.corner, mode, tolerance=0.0)
        return np.asarray(own.numpy() + patch.weight * (result - own.numpy()))
    result[(slice(None), *box)] += patch.weight * patch.mask * (part - result[(slice(None), *box)])
    return result


@EVERY_MODE
@SIZES
def test_a_part_is_resized_moved_and_blended(mode: str, shape: tuple[int, ...]) -> None:
    own, source = pictures(*shape)
    method = RandNSA(mode=mode, label="binary", resize=True, **LARGE)
    for seed in range(3):
        patch = patch_of(method, own, source, seed)
        result = method.apply(own[None], [Plan([patch])])
        wanted = blended(own, patch, mode)
        support = result["support"][0].numpy()
        assert support.sum() > 20
        np.testing.assert_allclose(result["image"][0].numpy(), np.where(support, wanted, own.numpy()), atol=2e-4)
        change = np.abs(wanted - own.numpy()).mean(0)
        clear = np.abs(change - GREY)[None] > 1e-4  # rounding decides the rest
        np.testing.assert_array_equal(support[clear], (change > GREY)[None][clear])  # too small to be smoothed
        np.testing.assert_array_equal(result["label"][0].numpy(), support)


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


@pytest.mark.parametrize(("preset", "brightness"), [("cxr", 0.0), ("mvtec", 200 / 255)])
def test_without_masks_the_background_has_a_known_brightness(preset: str, brightness: float) -> None:
    here, there = ball((64, 64), (30, 28), 20), ball((64, 64), (34, 40), 17)
    own, source = (torch.from_numpy(np.where(x, 0.5, brightness).astype(np.float32))[None] for x in (here, there))
    method = RandNSA(preset=preset, mode="swap", half_width=(0.1, 0.2), max_anomalies=1)
    assert method.foreground is not None
    for image, wanted in ((own, here), (source, there)):
        found = method.foreground(image)[0].numpy()
        assert (found & wanted).sum() / (found | wanted).sum() > 0.95
    for seed in range(5):
        patch = patch_of(method, own, source, seed)
        first, extent = patch.parameters["first"], patch.parameters["extent"]
        shown = method.foreground(source)[0].numpy()[tuple(map(slice, first, first + extent))]
        assert shown.mean() >= method.corruptor.part.min_object  # type: ignore[attr-defined]
        assert method.foreground(own)[0].numpy()[box_of(patch)].mean() >= method.corruptor.part.min_object  # type: ignore[attr-defined]


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_the_background_and_the_label_follow_the_value_range(value_range: tuple[float, float]) -> None:
    own, source = pictures(1, 48, 48)
    own, source = own * torch.from_numpy(ball((48, 48), (24, 24), 20)), source * 0.9
    low, high = value_range
    reference = RandNSA([source], preset="cxr").set_random_state(3)(own)
    scaled = RandNSA([source * (high - low) + low], preset="cxr", value_range=value_range)
    sample = scaled.set_random_state(3)(own * (high - low) + low)
    torch.testing.assert_close((sample["image"] - low) / (high - low), reference["image"], atol=1e-4, rtol=0)
    assert float((sample["label"] - reference["label"]).abs().mean()) < 1e-3
    assert reference["target"] == sample["target"] == 1


def test_presets_are_the_published_settings() -> None:
    default, cxr, mvtec = (RandNSA(preset=preset) for preset in ("default", "cxr", "mvtec"))
    for method, half, gamma, most, object_, overlap, slope, middle in (
        (default, (0.05, 0.2), None, 1, 0.25, 0.25, 1 / 6, 20),
        (cxr, (0.03, 0.4), (2, 0.03, 0.05), 3, 0.7, 0.7, 1 / 2, 4),
        (mvtec, (0.03, 0.4), (2, 0.05, 0.03), 3, 0.25, 0.25, 1 / 6, 20),
    ):
        shape, part = method.shape, method.corruptor.part  # type: ignore[attr-defined]
        assert isinstance(shape, RandomPart) and isinstance(method.labeller, ChangeLabel)
        assert shape.half_width.tolist() == [list(half)] and shape.gamma == gamma
        assert (method.max_anomalies, part.min_object, part.min_overlap) == (most, object_, overlap)
        flat = torch.full((1, 1, 24, 24), middle * GREY)
        middle_label = method.labeller(flat, flat > 0, flat)
        torch.testing.assert_close(middle_label, torch.full_like(flat, 0.5))
        above = method.labeller(flat + 3 * GREY, flat > 0, flat)
        torch.testing.assert_close(above, torch.full_like(flat, 1 / (1 + np.exp(-3 * slope))))
    changed = RandNSA(preset="cxr", half_width=(0.1, 0.2), gamma="uniform", background="none", max_anomalies=2)
    assert changed.shape.gamma is None and changed.foreground is None  # type: ignore[union-attr]
    assert changed.max_anomalies == 2


@EVERY_LABEL
@pytest.mark.parametrize(("size", "disk_radius", "width"), [(224, 5, 5), (300, 5, 5), (112, 2, 3), (40, 1, 1)])
def test_the_label_is_its_formula_of_the_change(label: str, size: int, disk_radius: int, width: int) -> None:
    rng = np.random.RandomState(0)
    change = ndimage.zoom(rng.rand(8, 8), (size / 8, size / 8 + 1), order=1)
    change = ((change - change.min()) / np.ptp(change) * 0.2).astype(np.float32)
    change[change < 0.08] = 0
    change[20:23, 20:23] = rng.rand(3, 3) * GREY  # too small to count
    weight = np.where(change > 0, 0.4, 0).astype(np.float32)
    maps = [torch.from_numpy(x)[None, None] for x in (change, change > 0, weight)]
    result = ChangeLabel(label, (1 / 6, 20), GREY, 1.0)(*maps)[0, 0].numpy()
    support = ndimage.uniform_filter((change > GREY).astype(float), width, mode="constant") > 0.5
    support &= change > 0
    median = ndimage.median_filter(change * support, footprint=disk(disk_radius))
    wanted = {
        "binary": support,
        "factor": 0.4 * support,
        "intensity": median * support,
        "logistic": support / (1 + np.exp(-(255 * median - 20) / 6)),
    }[label]
    core = (slice(7, -7), slice(7, -7))
    np.testing.assert_allclose(result[core], wanted[core], atol=1e-6)
    assert (result > 0).sum() > 50


@EVERY_LABEL
@EVERY_MODE
@SIZES
def test_where_there_is_no_label_nothing_has_changed(label: str, mode: str, shape: tuple[int, ...]) -> None:
    own, source = pictures(*shape)
    sample = RandNSA([source], mode=mode, label=label, max_anomalies=3, **LARGE).set_random_state(1)(own)
    assert sample["image"].shape == shape and sample["label"].shape == (1, *shape[1:])
    assert sample["label"].min() >= 0 and sample["label"].max() <= 1
    changed = (sample["image"] != own).any(0, keepdim=True)
    assert torch.equal(changed, sample["support"]) and torch.equal(sample["support"], sample["label"] > 0)
    assert sample["target"] == 1
    assert sample["image"].min() >= own.min() and sample["image"].max() <= own.max()


def test_an_intensity_label_never_exceeds_1() -> None:
    dark, bright = torch.full((1, 40, 40), -1.0), torch.full((1, 40, 40), 1.0)
    dark[..., 0, 0] = 1
    sample = RandNSA([bright], mode="swap", label="intensity", value_range=(-1, 1), **LARGE).set_random_state(0)(dark)
    assert float(sample["label"].max()) == 1.0


@EVERY_MODE
def test_the_factor_weighs_the_change(mode: str) -> None:
    own, source = pictures(1, 48, 48)
    for label in ("factor", "binary"):
        weights = [patch_of(RandNSA(mode=mode, label=label, **LARGE), own, source, seed).weight for seed in range(40)]
        drawn = mode == "uniform" or (label == "factor" and mode != "swap")
        assert (min(weights) < 0.2 and max(weights) > 0.8) if drawn else set(weights) == {1.0}
        assert min(weights) >= 0.05 and (max(weights) <= 0.95 or not drawn)
    method = RandNSA(mode=mode, label="factor", alpha=(0.5, 0.5), **LARGE)
    patch = patch_of(method, own, source)
    sample = method.apply(own[None], [Plan([patch])])
    inside = sample["support"]
    assert set(sample["label"][inside].tolist()) == {1.0 if mode == "swap" else 0.5}
    np.testing.assert_allclose(sample["image"][inside], blended(own, patch, mode)[None][inside.numpy()], atol=2e-4)


def test_the_factor_of_poisson_blending_weighs_the_gradients() -> None:
    own, source = pictures(1, 48, 48)
    method = RandNSA(mode="source", label="factor", alpha=(0.3, 0.3), clip=None, **LARGE)
    patch = patch_of(method, own, source)
    image = method.apply(own[None], [Plan([patch])])["image"][0].numpy()
    # gradients 0.3 of the part's and 0.7 of the image's are those of this mixture
    mixture = 0.3 * part_by_splines(patch) + 0.7 * own.numpy()[(slice(None), *box_of(patch))]
    wanted, _ = poisson_blend(own.numpy().astype(float), mixture, patch.mask, patch.corner, "source", clip=None)
    changed = image != own.numpy()
    assert changed.sum() > 50
    np.testing.assert_allclose(image[changed], wanted[changed], atol=1e-5)


def test_later_parts_do_not_overwrite_the_mask_of_earlier_ones() -> None:
    own, source = torch.full((1, 40, 40), 0.2), torch.full((1, 40, 40), 0.8)
    method = RandNSA(mode="swap", label="binary", clip=None, **LARGE)
    first, second = (patch_of(method, own, source, seed) for seed in (0, 1))
    for patch, columns in ((first, slice(1, -1)), (second, slice(1, 7))):
        patch.corner, patch.mask = (10, 8), np.zeros((20, 24), dtype=bool)
        patch.mask[1:-1, columns] = True
        corner, size = np.zeros(2, dtype=int), np.array([20, 24])
        patch.parameters = {"matrix": np.eye(2), "offset": np.zeros(2), "first": corner, "extent": size}
    together = method.apply(own[None], [Plan([first, second])])["support"]
    assert torch.equal(together, method.apply(own[None], [Plan([first])])["support"])
    assert together.sum() > 18 * 22 - 20


def test_the_label_of_overlapping_parts_is_that_of_the_final_image() -> None:
    own, source = pictures(1, 48, 48)
    method = RandNSA([source], label="intensity", max_anomalies=4, preset="mvtec", background="none")
    overlaps = 0
    for seed in range(20):
        sample = method.set_random_state(seed)(own)
        boxes = np.zeros((48, 48), dtype=int)
        for p in json.loads(sample["params"]):
            boxes[tuple(slice(a, a + n) for a, n in zip(p["corner"], p["size"], strict=True))] += 1
        overlaps += boxes.max() > 1
        change = (sample["image"] - own).abs()[0].numpy()
        median = ndimage.median_filter(change, footprint=disk(1)) * sample["support"][0].numpy()
        # voxels whose median was 0 have been taken back since, which changes that of some neighbors
        assert np.mean(np.abs(median - sample["label"][0].numpy())[1:-1, 1:-1] > 1e-6) < 0.03
    assert overlaps > 3


def test_the_number_of_parts_halves() -> None:
    own, source = pictures(1, 40, 40)
    method = RandNSA(preset="mvtec", background="none", max_anomalies=3)
    rng = np.random.RandomState(0)
    counts = np.bincount([len(method.plan(rng, own, None, [source]).patches) for _ in range(400)], minlength=4)
    assert np.abs(counts / 400 - [0, 0.5, 0.25, 0.25]).max() < 0.08


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


@pytest.mark.parametrize(("on_empty", "target"), [("skip", 0), ("ignore", 1)])
def test_an_empty_foreground_is_skipped_or_ignored(on_empty: str, target: int) -> None:
    own, source = pictures(1, 40, 40)
    method = RandNSA([source], on_empty=on_empty, **LARGE).set_random_state(0)
    assert method(own, torch.zeros(1, 40, 40))["target"] == target
    with pytest.raises(ValueError, match="empty"):
        RandNSA([source], on_empty="raise")(own, torch.zeros(1, 40, 40))


@EVERY_MODE
def test_constant_images(mode: str) -> None:
    own = torch.full((1, 40, 40), 0.3)
    sample = RandNSA([own.clone()], mode=mode, **LARGE).set_random_state(0)(own)
    assert sample["target"] == 0 and torch.equal(sample["image"], own)


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


def test_the_source_may_have_more_or_fewer_channels() -> None:
    (own,), (grey,) = pictures(3, 40, 40, number=1), pictures(1, 40, 40, number=1, seed=1)
    for image, source in ((own, grey), (grey, own)):
        sample = RandNSA([source], **LARGE).set_random_state(0)(image)
        assert sample["target"] == 1 and sample["image"].shape == image.shape
        changed = (sample["image"] != image).flatten(1).any(1)
        assert changed.all()  # no channel is left out


def test_the_source_is_drawn_by_its_index() -> None:
    own, *sources = pictures(1, 40, 40, number=6)
    method = RandNSA(sources, **LARGE)
    first, again = ([method.set_random_state(seed)(own) for seed in range(12)] for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["image"], b["image"]) and a["params"] == b["params"]
    assert {json.loads(sample["params"])[0]["source"] for sample in first} == set(range(5))


@EVERY_MODE
@SIZES
def test_a_batch_gets_what_its_images_get_alone(mode: str, shape: tuple[int, ...]) -> None:
    images = torch.stack(pictures(*shape, number=4))
    masks = torch.ones(4, 1, *shape[1:])
    masks[:, :, :10] = 0
    settings: dict[str, Any] = {"mode": mode, "max_anomalies": 2, **LARGE}
    batch = BatchAnomaly(RandNSA(**settings))
    batch.set_random_state(5)
    result = batch(images, masks)
    single, rng = RandNSA(**settings), np.random.RandomState(5)
    for row, image in enumerate(images):
        others = [{"image": images[at], "foreground": masks[at]} for at in range(4) if at != row]
        plan = single.plan(rng, image, masks[row], others)
        alone = single.apply(image[None], [plan])
        assert json.loads(result["params"][row]) == json.loads(json.dumps(plan.describe()))
        # a voxel whose change rounding puts on the other side of the tolerance may differ by as much
        for key, most in (("image", 2 * GREY), ("label", 1.0)):
            difference = (result[key][row] - alone[key][0]).abs()
            assert (difference > 1e-4).float().mean() < 1e-3 and difference.max() <= most
        assert result["target"][row] == alone["target"][0]
    assert result["target"].sum() >= 3


def test_the_dictionary_version_does_the_same() -> None:
    own, source = pictures(1, 40, 40)
    mask = torch.from_numpy(ball((40, 40), (20, 20), 15))[None]
    array = RandNSA(**LARGE).set_random_state(8)(own, mask, source)
    transform = RandNSAd("image", source_key="other", foreground_key="mask", **LARGE)
    transform.set_random_state(8)
    sample = transform({"image": own, "other": source, "mask": mask})
    for key in ("image", "label", "support", "clean"):
        assert torch.equal(sample[key], array[key])
    assert sample["target"] == 1 and sample["params"] == array["params"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "paste"},
        {"label": "soft"},
        {"preset": "brain"},
        {"half_width": (0.3, 0.1)},
        {"half_width": (0.1, 0.2, 0.3)},
        {"half_width": (0.0, 0.2)},
        {"gamma": (2, 0.1)},
        {"gamma": "normal"},
        {"unit": "cm"},
        {"min_object": 1.5},
        {"min_overlap": -0.1},
        {"background": (0, -1)},
        {"background": "black"},
        {"logistic": (0, 20)},
        {"alpha": (0.5, 1.5)},
        {"num_ellipses": -1},
        {"erode": -1},
        {"max_attempts": 0},
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        RandNSA(**{"mode": "uniform", **wrong})


def test_images_that_do_not_fit_are_refused() -> None:
    flat, deep = torch.zeros(1, 40, 40), torch.zeros(1, 40, 40, 40)
    with pytest.raises(ValueError, match="source 0 is 3D, but the image 2D"):
        RandNSA([deep])(flat)
    with pytest.raises(ValueError, match="given for 2 axes, but the image has 3"):
        RandNSA([deep], half_width=((0.1, 0.2), (0.1, 0.2)))(deep)
    with pytest.raises(ValueError, match="source="):
        RandNSA()(flat)


@EVERY_MODE
def test_a_pair_of_chest_radiographs(mode: str, shared_data: Path) -> None:
    pair = []
    for name in ("kermany_0001.png", "kermany_0002.png"):
        image = shared_data / "cxr" / "images" / name
        for step in (LoadImage(image_only=True, ensure_channel_first=True), Resize((128, 128)), ScaleIntensity()):
            image = step(image)
        pair.append(image[:1])
    own, source = pair
    method = RandNSA([source], preset="cxr", mode=mode).set_random_state(0)
    samples = [method(own) for _ in range(8)]
    assert sum(sample["target"] for sample in samples) >= 7
    for sample in samples:
        assert isinstance(sample["image"], MetaTensor)
        changed = (sample["image"] != own).any(0, keepdim=True)
        assert torch.equal(changed.as_tensor(), sample["support"].as_tensor())
        assert own.min() <= sample["image"].min() and sample["image"].max() <= own.max()
