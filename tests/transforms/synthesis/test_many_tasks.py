# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What the five tasks share; what each does to the voxels is in ``test_many_tasks_voxels.py``."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage, stats
from torch import Tensor

from monai_anomaly.functional.labelling import binary_label
from monai_anomaly.transforms.synthesis import many_tasks as module
from monai_anomaly.transforms.synthesis.many_tasks import EDITIONS, many_tasks, task_folds
from monai_anomaly.transforms.synthesis.plan import Plan
from monai_anomaly.transforms.synthesis.shapes import RandomDeformedShape

CASES = [(1, (48, 40)), (3, (36, 44)), (1, (18, 20, 16)), (2, (12, 14, 13))]
TASKS = range(5)


def textured(channels: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """An image that a warp or a blend changes everywhere, in [0, 1]."""
    noise = ndimage.gaussian_filter(np.random.RandomState(seed).rand(channels, *shape), (0, *[1.2] * len(shape)))
    return torch.from_numpy((noise - noise.min()) / max(np.ptp(noise), 1e-6)).float()


def five(channels: int = 1, shape: tuple[int, ...] = (48, 40), edition: str = "many-tasks", **kwargs: Any) -> list[Any]:
    sources = [textured(channels, shape, seed) for seed in (11, 12, 13)]
    return many_tasks(sources[:2], sources[2:], edition, **kwargs)


def drawn_masks(plan: Plan, shape: tuple[int, ...], whole: bool) -> np.ndarray:
    """Union of what a plan drew: masks, or their whole boxes."""
    union = np.zeros(shape, dtype=bool)
    for patch in plan.patches:
        place = tuple(slice(low, low + n) for low, n in zip(patch.corner, patch.mask.shape, strict=True))
        union[place] |= np.ones_like(patch.mask) if whole else patch.mask
    return union


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(("channels", "shape"), CASES)
@pytest.mark.parametrize("task", TASKS)
def test_only_the_support_changes(task: int, channels: int, shape: tuple[int, ...], edition: str) -> None:
    image, corruption = textured(channels, shape), five(channels, shape, edition)[task]
    kept, made = image.clone(), 0
    for seed in range(4):
        result = corruption.set_random_state(seed)(image)
        plan = corruption.plan(np.random.RandomState(seed), image)
        assert torch.equal(image, kept) and torch.equal(result["clean"], kept)
        assert result["image"].shape == image.shape and result["image"].dtype == torch.float32
        assert result["label"].shape == result["support"].shape == (1, *shape)
        assert result["label"].dtype == torch.float32 and result["support"].dtype == torch.bool
        changed = (result["image"] != image).any(0, keepdim=True)
        assert result["target"] == int(bool(changed.any())) and result["task"] == task
        assert not bool((changed & ~result["support"]).any())
        made += result["target"]
        assert torch.equal(result["support"], result["label"] > 0)
        assert float(result["label"].max()) <= 1
        allowed = drawn_masks(plan, shape, whole=task in (module.POISSON_SAME, module.POISSON_OTHER))
        assert not (result["support"][0].numpy() & ~allowed).any()
        drawn = json.loads(result["params"])
        assert [entry["corner"] for entry in drawn] == [list(patch.corner) for patch in plan.patches]
        assert 1 <= len(drawn) <= 4
    assert made >= 3  # a blend of three voxels with a weak source may change nothing


@pytest.mark.parametrize(("channels", "shape"), CASES)
@pytest.mark.parametrize("task", TASKS)
def test_each_channel_keeps_its_range(task: int, channels: int, shape: tuple[int, ...]) -> None:
    image = textured(channels, shape) * torch.linspace(0.3, 1, channels).reshape(-1, *[1] * len(shape))
    corruption = five(channels, shape)[task]
    for seed in range(4):
        result = corruption.set_random_state(seed)(image)["image"]
        for before, after in zip(image, result, strict=True):
            assert before.min() <= after.min() and after.max() <= before.max()


def test_the_number_of_anomalies_is_halved_again_and_again() -> None:
    corruption, image, rng = five()[module.INTENSITY], textured(1, (24, 20)), np.random.RandomState(0)
    counts = np.bincount([len(corruption.plan(rng, image).patches) for _ in range(1600)], minlength=5)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], 1600 * np.array([0.5, 0.25, 0.125, 0.125])).pvalue > 0.01


def test_the_most_anomalies_can_be_set() -> None:
    image, rng = textured(1, (24, 20)), np.random.RandomState(0)
    for most in (1, 2):
        corruption = five(max_anomalies=most)[module.SINK]
        assert {len(corruption.plan(rng, image).patches) for _ in range(40)} == set(range(1, most + 1))


def test_each_anomaly_is_drawn_anew() -> None:
    corruption, image, rng = five()[module.POISSON_SAME], textured(1, (48, 40)), np.random.RandomState(1)
    plans = [corruption.plan(rng, image) for _ in range(60)]
    several = [plan.patches for plan in plans if len(plan.patches) > 1]
    assert len(several) > 15
    assert all(a.corner != b.corner or a.mask.shape != b.mask.shape for a, b, *_ in several)
    pairs = [(a.parameters["source"], b.parameters["source"]) for a, b, *_ in several]
    assert set(pairs) == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("task", TASKS)
def test_anomalies_of_an_image_build_on_each_other(task: int) -> None:
    image, corruption = textured(1, (48, 40)), five()[task]
    for seed in range(30):
        plan = corruption.plan(np.random.RandomState(seed), image)
        if len(plan.patches) < 3:
            continue
        whole = corruption.apply(image[None], [plan])
        steps = image[None]
        for patch in plan.patches:
            # the range to clip to is that of the clean image: here no step leaves it for long
            steps = torch.clip(corruption.apply(steps, [Plan([patch], task)])["image"], image.min(), image.max())
        overlap = sum(drawn_masks(Plan([patch]), (48, 40), True).astype(int) for patch in plan.patches)
        if overlap.max() > 1:
            np.testing.assert_allclose(whole["image"], steps, atol=0.02)
            return
    pytest.fail("no image with anomalies that overlap")


@pytest.mark.parametrize("task", TASKS)
def test_the_default_label_is_the_flipped_gaussian_of_the_change(task: int) -> None:
    image, corruption = textured(2, (48, 40)), five(2)[task]
    for seed in range(6):
        result = corruption.set_random_state(seed)(image)
        change = (result["image"] - image).abs().mean(0, keepdim=True) * result["support"]
        gaussian = 1 - torch.exp(-(change.double() ** 2) / (2 * 0.2**2))
        assert bool((result["label"] >= gaussian - 1e-6).all())  # closing and filling only raise it
        regions, count = ndimage.label(result["support"][0])
        for number in range(1, count + 1):
            inside = torch.from_numpy(regions == number)[None]
            assert float((result["label"][inside].max() - gaussian[inside].max()).abs()) < 1e-5


@pytest.mark.parametrize("task", TASKS)
def test_the_diffusion_edition_is_labelled_by_its_support(task: int) -> None:
    result = five(edition="diffusion")[task].set_random_state(0)(textured(1, (48, 40)))
    assert torch.equal(result["label"], result["support"].float())


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("task", TASKS)
def test_another_value_range_is_the_same_anomaly_on_another_scale(task: int, edition: str) -> None:
    image, shape = textured(1, (48, 40)), (48, 40)
    sources = [textured(1, shape, seed) for seed in (11, 12)]
    plain = many_tasks(sources, sources, edition)[task].set_random_state(3)(image)
    scaled = [source * 2 - 1 for source in sources]
    other = many_tasks(scaled, scaled, edition, value_range=(-1, 1))[task].set_random_state(3)(image * 2 - 1)
    np.testing.assert_allclose(other["image"], plain["image"] * 2 - 1, atol=1e-5)
    np.testing.assert_allclose(other["label"], plain["label"], atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_state_makes_the_same_anomaly_and_leaves_global_states_alone(task: int) -> None:
    image, corruption = textured(1, (48, 40)), five()[task]
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = corruption.set_random_state(5)(image)
    second, third = corruption(image), corruption.set_random_state(5)(image)
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])
    for name in ("image", "label", "support"):
        assert torch.equal(first[name], third[name])
    assert first["params"] == third["params"] != second["params"]


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("task", TASKS)
def test_constant_and_tiny_images_are_left_alone_or_finite(task: int, edition: str) -> None:
    for shape in ((40, 30), (12, 13, 11)):
        image = torch.full((1, *shape), 0.5)
        sources = [torch.full((1, *shape), 0.2)]
        result = many_tasks(sources, sources, edition)[task].set_random_state(0)(image)
        assert torch.equal(result["image"], image)
        assert result["target"] == 0 and not bool(result["support"].any()) and float(result["label"].max()) == 0
    for shape in ((1, 1), (3, 3), (2, 9), (4, 3, 3)):
        image = torch.rand(1, *shape)
        for seed in range(5):
            result = five(1, shape, edition, max_attempts=20)[task].set_random_state(seed)(image)
            assert bool(torch.isfinite(result["image"]).all() & torch.isfinite(result["label"]).all())
            assert result["target"] == int(bool((result["image"] != image).any()))


@pytest.mark.parametrize("task", TASKS)
def test_meta_data_stay(task: int) -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    image = MetaTensor(textured(1, (40, 36)), affine=affine, meta={"filename_or_obj": "a.nii"})
    result = five()[task].set_random_state(0)(image)
    for name in ("image", "clean", "label", "support"):
        assert isinstance(result[name], MetaTensor) and result[name].meta["filename_or_obj"] == "a.nii"
        assert torch.equal(result[name].affine, image.affine)
    plain = five()[task].set_random_state(0)(image.as_tensor())
    assert torch.equal(plain["image"], result["image"].as_tensor())


@pytest.mark.parametrize("task", TASKS)
def test_what_gets_no_label_becomes_what_it_was(task: int) -> None:
    def labeller(change: Tensor, support: Tensor, weight: Tensor) -> Tensor:
        return (change > 0.1).float()

    image, erased = textured(1, (48, 40)), 0
    for seed in range(6):
        plain = five(labeller=binary_label)[task].set_random_state(seed)(image)
        result = five(labeller=labeller)[task].set_random_state(seed)(image)
        large = (plain["image"] - image).abs() > 0.1
        assert torch.equal(result["label"] > 0, large) and torch.equal(result["support"], large)
        assert torch.equal(result["image"], torch.where(large, plain["image"], image))
        assert result["target"] == int(bool(large.any()))
        erased += int((plain["support"] & ~large).sum())
    assert erased > 0


# --- editions -------------------------------------------------------------------------------------------------------


def two_regions() -> np.ndarray:
    foreground = np.zeros((1, 90, 80), dtype=bool)
    foreground[0, 20:60, 10:50] = True
    foreground[0, 70:80, 60:70] = True
    return foreground


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("task", TASKS)
def test_half_of_each_shape_lies_in_the_foreground(task: int, edition: str) -> None:
    image, foreground = textured(1, (90, 80)), two_regions()
    if edition == "diffusion":
        foreground[0, 60:] = False  # sizes fit the largest region, and only there all of them find a place
    corruption, rng = five(1, (90, 80), edition)[task], np.random.RandomState(0)
    for _ in range(15):
        plan = corruption.plan(rng, image, foreground)
        assert plan.patches
        for patch in plan.patches:
            place = tuple(slice(low, low + n) for low, n in zip(patch.corner, patch.mask.shape, strict=True))
            assert (foreground[0][place] & patch.mask).sum() >= 0.5 * patch.mask.sum()


def test_sizes_follow_the_edition() -> None:
    image, foreground, rng = textured(1, (90, 80)), two_regions(), np.random.RandomState(0)
    boxes = {}
    for edition in EDITIONS:
        corruption = five(1, (90, 80), edition)[module.INTENSITY]
        plans = [corruption.plan(rng, image, foreground) for _ in range(80)]
        boxes[edition] = np.array([patch.mask.shape for plan in plans for patch in plan.patches])
    assert boxes["diffusion"].max() == 32  # four fifths of the largest region
    assert (boxes["many-tasks"].max(0) > (40, 40)).all()


def test_places_follow_the_edition() -> None:
    """Two regions with equal boxes, one an L: alike in the diffusion edition, by their room in the other."""
    foreground = np.zeros((1, 60, 140), dtype=bool)
    foreground[0, 10:50, 10:50] = True
    foreground[0, 10:50, 90:130] = True
    foreground[0, 10:38, 102:130] = False
    image, shape = textured(1, (60, 140)), RandomDeformedShape((6, 9), (2, 1, 4), "voxel")
    counts = {}
    for edition in EDITIONS:
        corruption, rng = many_tasks(edition=edition, shape=shape)[module.INTENSITY], np.random.RandomState(0)
        patches = [patch for _ in range(120) for patch in corruption.plan(rng, image, foreground).patches]
        counts[edition] = sum(patch.corner[1] > 70 for patch in patches), len(patches)
    assert stats.binomtest(*counts["diffusion"]).pvalue > 0.01
    assert stats.binomtest(*counts["many-tasks"]).pvalue < 0.001


def test_the_diffusion_edition_lowers_its_demands_where_there_is_little_foreground() -> None:
    foreground = np.zeros((1, 60, 60), dtype=bool)
    foreground[0, 10:50:4, 10:50] = True  # a quarter of any shape
    foreground[0, 10:50, 10] = True
    image = textured(1, (60, 60))
    strict, lenient = (five(1, (60, 60), edition, max_attempts=30)[module.INTENSITY] for edition in EDITIONS)
    shares = []
    for corruption in (strict, lenient):
        rng, overlaps = np.random.RandomState(0), []
        for _ in range(3):
            for patch in corruption.plan(rng, image, foreground).patches:
                place = tuple(slice(low, low + n) for low, n in zip(patch.corner, patch.mask.shape, strict=True))
                overlaps.append((foreground[0][place] & patch.mask).sum() / patch.mask.sum())
        shares.append(overlaps)
    assert all(share >= 0.5 for share in shares[0])  # or no place is found at all
    assert len(shares[1]) >= 3 and min(shares[1]) < 0.5


@pytest.mark.parametrize(("edition", "width", "furthest"), [("many-tasks", 256, 10.0), ("diffusion", 128, 5.0)])
@pytest.mark.parametrize("task", [module.SINK, module.SOURCE])
def test_pushes_are_the_published_ones(task: int, edition: str, width: int, furthest: float) -> None:
    corruption, image, rng = five(edition=edition)[task], torch.zeros(1, width, width), np.random.RandomState(0)
    patches = [patch for _ in range(60) for patch in corruption.plan(rng, image).patches]
    pushes = np.array([patch.parameters["push"] for patch in patches])
    radii = np.array([np.linalg.norm(np.argwhere(p.mask) - p.parameters["center"], axis=1).max() for p in patches])
    large = radii > 0.3 * width  # shapes that no other bound holds back
    assert furthest / 2 < pushes[large].max() <= furthest * 1.001
    small = many_tasks(edition=edition, shape=RandomDeformedShape((0.06, 0.1)))[task]
    patches = [patch for _ in range(80) for patch in small.plan(rng, image).patches]
    assert 0.5 <= min([*pushes, *(patch.parameters["push"] for patch in patches)]) < 0.9


def test_the_fourth_task_is_fractal_in_the_diffusion_edition_alone() -> None:
    image = torch.full((1, 60, 60), 0.5)
    roughness = {}
    for edition in EDITIONS:
        corruption = five(edition=edition, clip=None, max_anomalies=1)[module.INTENSITY]
        changes = [corruption.set_random_state(seed)(image)["image"] - image for seed in range(20)]
        top = [float((change.abs() >= 0.999 * change.abs().max()).sum()) for change in changes]
        roughness[edition] = np.median(top)
    assert roughness["diffusion"] <= 3 < 10 < roughness["many-tasks"]  # a peak, and a plateau


def test_tasks_have_their_numbers_and_settings() -> None:
    for edition in EDITIONS:
        found = many_tasks(edition=edition, prob=0.5)
        assert [corruption.task for corruption in found] == [0, 1, 2, 3, 4]
        assert all(corruption.edition == edition and corruption.prob == 0.5 for corruption in found)
    names = [type(corruption).__name__ for corruption in many_tasks()]
    assert names == [
        "RandPoissonBlend",
        "RandPoissonBlend",
        "RandSinkDeform",
        "RandSourceDeform",
        "RandSmoothIntensity",
    ]
    with pytest.raises(ValueError, match="edition"):
        many_tasks(edition="2022")
    with pytest.raises(ValueError, match="edition"):
        module.RandSinkDeform(edition="2022")


@pytest.mark.parametrize("name", ["PoissonBlend", "SinkDeform", "SourceDeform", "SmoothIntensity", "FractalIntensity"])
def test_dictionary_versions_do_the_same(name: str) -> None:
    image = textured(1, (40, 36))
    kwargs: dict[str, Any] = {"source": [textured(1, (40, 36), 5)]} if name == "PoissonBlend" else {}
    array = getattr(module, f"Rand{name}")(**kwargs).set_random_state(4)(image)
    sample = getattr(module, f"Rand{name}d")("scan", **kwargs).set_random_state(4)({"scan": image, "id": 7})
    assert sample["id"] == 7 and torch.equal(sample["scan"], array["image"])
    assert all(torch.equal(sample[key], array[key]) for key in ("clean", "label", "support"))
    assert [sample[key] for key in ("target", "task", "params")] == [array[key] for key in ("target", "task", "params")]


# --- folds ----------------------------------------------------------------------------------------------------------


def test_folds_are_the_published_ones() -> None:
    published = [
        (0, 1, 2),
        (0, 1, 3),
        (0, 1, 4),
        (0, 2, 3),
        (0, 2, 4),
        (0, 3, 4),
        (1, 2, 3),
        (1, 2, 4),
        (1, 3, 4),
        (2, 3, 4),
    ]
    assert [train for train, _ in task_folds()] == published


@pytest.mark.parametrize(("train", "folds"), [(1, 5), (2, 10), (3, 10), (4, 5)])
def test_folds_hold_all_choices_and_validate_on_the_rest(train: int, folds: int) -> None:
    found = task_folds(num_train=train)
    assert [tasks for tasks, _ in found] == list(combinations(range(5), train)) and len(found) == folds
    assert all(sorted(tasks + rest) == [0, 1, 2, 3, 4] for tasks, rest in found)


@pytest.mark.parametrize("train", [0, 5, -1, 6])
def test_folds_need_tasks_to_train_and_to_validate_on(train: int) -> None:
    with pytest.raises(ValueError, match="num_train"):
        task_folds(num_train=train)
