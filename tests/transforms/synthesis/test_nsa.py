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
from pictures import ball, box_of, patch_of, pictures, radiographs
from scipy import ndimage
from skimage.morphology import disk
from torch import Tensor

from monai_anomaly.functional.blending import poisson_blend
from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.natural_parts import RandomPart
from monai_anomaly.transforms.synthesis.nsa import MODES, ChangeLabel, RandNSA, RandNSAd
from monai_anomaly.transforms.synthesis.plan import Patch, Plan

GREY = 1 / 255
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
EVERY_LABEL = pytest.mark.parametrize("label", ["logistic", "binary", "factor", "intensity"])
SIZES = pytest.mark.parametrize("shape", [(1, 48, 48), (3, 40, 56), (2, 24, 28, 20)])
LARGE: dict[str, Any] = {"half_width": (0.15, 0.3)}


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
    result = ChangeLabel(label, (1 / 6, 20), GREY)(*maps)[0, 0].numpy()
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
    own, source = radiographs(shared_data)
    method = RandNSA([source], preset="cxr", mode=mode).set_random_state(0)
    samples = [method(own) for _ in range(8)]
    assert sum(sample["target"] for sample in samples) >= 7
    for sample in samples:
        assert isinstance(sample["image"], MetaTensor)
        changed = (sample["image"] != own).any(0, keepdim=True)
        assert torch.equal(changed.as_tensor(), sample["support"].as_tensor())
        assert own.min() <= sample["image"].min() and sample["image"].max() <= own.max()
