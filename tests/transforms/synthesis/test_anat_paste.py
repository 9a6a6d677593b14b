# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose
from PIL import Image
from scipy import ndimage
from torch import Tensor

from monai_anomaly.functional.labelling import weight_label
from monai_anomaly.transforms.anatomy import LungMask, LungMaskd
from monai_anomaly.transforms.synthesis.anat_paste import PasteSoft, RandAnatPaste, RandAnatPasted, RandomInnerShape
from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.plan import Frame, Patch

SHAPE = (64, 80)


def scene(channels: int = 1, shape: tuple[int, int] = SHAPE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and two lungs that do not touch the edge."""
    image = torch.rand(channels, *shape, generator=torch.Generator().manual_seed(seed))
    lungs = torch.zeros(1, *shape, dtype=torch.bool)
    height, width = shape
    lungs[0, height // 6 : -height // 6, width // 8 : width // 2 - 3] = True
    lungs[0, height // 5 : -height // 8, width // 2 + 3 : -width // 10] = True
    return image, lungs


def params(sample: dict[str, Any]) -> dict[str, Any]:
    (drawn,) = json.loads(sample["params"])
    return dict(drawn)


def slow_shape(drawn: dict[str, Any], shape: tuple[int, ...], margin: int, at_least: int) -> np.ndarray:
    """Draw the shape on the whole canvas, pixel by pixel."""
    half = [n // 2 for n in drawn["patch_size"]]
    center = [low + h for low, h in zip(drawn["patch_corner"], half, strict=True)]
    inner = [max(h - margin, at_least) + 0.5 for h in half]
    canvas = np.zeros(shape)
    for place in np.ndindex(*shape):
        u = [(p - c) / h for p, c, h in zip(place, center, inner, strict=True)]
        inside = u[0] ** 2 + u[1] ** 2 <= 1 if drawn["kind"] == "ellipsoid" else max(abs(u[0]), abs(u[1])) <= 1
        canvas[place] = inside
    return canvas


def slow_patch(image: np.ndarray, drawn: dict[str, Any], halo: bool) -> np.ndarray:
    """The jittered patch of a gray image on the whole canvas; its edge goes on, or black does."""
    (y, x), (height, width), (low_y, low_x) = drawn["source_corner"], drawn["patch_size"], drawn["patch_corner"]
    patch = np.clip(image[y : y + height, x : x + width] * drawn["brightness"], 0, 1)
    patch = np.clip(patch.mean() + drawn["contrast"] * (patch - patch.mean()), 0, 1)
    canvas = np.zeros_like(image)
    for row, column in np.ndindex(*image.shape):
        i, j = row - low_y, column - low_x
        if not halo or (0 <= i < height and 0 <= j < width):
            canvas[row, column] = patch[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
    return canvas


@pytest.mark.parametrize("compat", [None, "published"])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_slow_formula_on_the_whole_canvas(seed: int, compat: str | None) -> None:
    shape = (272, 250) if compat else SHAPE
    image, lungs = scene(shape=shape, seed=seed)
    paste = RandAnatPaste(labeller=weight_label, tolerance=0, clip=None, compat=compat).set_random_state(seed)
    sample = paste(image, lungs)
    drawn = params(sample)
    scale = np.sqrt(np.prod(shape)) / 256
    margin, at_least = (10, 0) if compat else (round(10 * scale), 1)
    canvas = slow_shape(drawn, shape, margin, at_least) * drawn["opacity"]
    weight = ndimage.gaussian_filter(canvas, drawn["sigma"], mode="nearest") * lungs[0].numpy()
    clear = abs(weight - 0.5 / 255) > 1e-6  # rounding may put the others on either side
    weight[weight < 0.5 / 255] = 0
    clean = image[0].numpy().astype(float)
    expected = (1 - weight) * clean + weight * slow_patch(clean, drawn, halo=compat is not None)
    assert sample["target"] == 1
    np.testing.assert_allclose(sample["image"][0].numpy()[clear], expected[clear], atol=1e-5)
    support = sample["support"][0].numpy()
    np.testing.assert_allclose(sample["label"][0].numpy(), np.where(support, weight, 0), atol=1e-5)
    assert (abs(expected - clean)[~support] <= 1e-6).mean() > 0.999 and support.sum() > 20


def test_drawn_numbers_follow_the_published_distributions() -> None:
    image, _ = scene(shape=(256, 256))
    frame = Frame(image)
    shape, corruptor = RandomInnerShape(), PasteSoft(min_visible=0)
    rng = np.random.RandomState(0)
    kinds, sigmas, opacities, areas, aspects = Counter(), Counter(), set(), [], []
    for _ in range(600):
        drawn = shape(rng, frame)
        patch = corruptor.draw(rng, Patch((20, 20), drawn.mask, drawn), frame)
        assert patch is not None
        kinds[patch.parameters["kind"]] += 1
        sigmas[patch.parameters["sigma"]] += 1
        opacities.add(round(patch.parameters["opacity"] * 255))
        height, width = patch.parameters["patch_size"]
        areas.append(height * width / 256**2)
        aspects.append(width / height)
        assert all(0 <= s <= 256 - n for s, n in zip(patch.parameters["source_corner"], (height, width), strict=True))
    assert abs(kinds["ellipsoid"] - 300) < 60
    assert sorted(sigmas) == list(range(15)) and min(sigmas.values()) > 15
    assert min(opacities) == 150 and max(opacities) == 254
    assert 0.018 < min(areas) < 0.03 and 0.14 < max(areas) < 0.16
    assert abs(np.mean(areas) - 0.085) < 0.004
    assert abs(np.log(aspects).mean()) < 0.1 and 0.27 < min(aspects) < 0.36 and 2.8 < max(aspects) < 3.7


def test_center_lies_in_the_lungs_and_nothing_else_changes() -> None:
    image, lungs = scene()
    paste = RandAnatPaste().set_random_state(0)
    centers = set()
    for _ in range(40):
        sample = paste(image, lungs)
        drawn = params(sample)
        center = tuple(low + n // 2 for low, n in zip(drawn["patch_corner"], drawn["patch_size"], strict=True))
        assert bool(lungs[(0, *center)])
        centers.add(center)
        changed = sample["image"] != image
        assert not (changed & ~lungs).any() and not (sample["support"] & ~lungs).any()
        assert torch.equal(changed, sample["support"]) and sample["target"] == 1
        assert torch.equal(sample["label"], sample["support"].float())
    assert len(centers) > 30


@pytest.mark.parametrize("size", [1, 2, 5, 32, 128, 224, 512])
def test_shape_is_never_inside_out(size: int) -> None:
    frame = Frame(torch.rand(1, size, size + 3))
    make, rng = RandomInnerShape(), np.random.RandomState(0)
    for _ in range(50):
        shape = make(rng, frame)
        middle = tuple(n // 2 for n in shape.mask.shape)
        assert all(n % 2 == 1 and n <= whole for n, whole in zip(shape.mask.shape, frame.shape, strict=True))
        assert shape.mask[middle] and shape.mask[::-1, ::-1].tolist() == shape.mask.tolist()
        wanted = [min(max(n // 2 - round(10 * np.sqrt(size * (size + 3)) / 256), 1), n // 2) for n in shape.mask.shape]
        rows, columns = np.nonzero(shape.mask)
        assert [np.ptp(rows) // 2, np.ptp(columns) // 2] == wanted


def test_published_margin_is_ten_pixels_and_fails_at_224_with_advice() -> None:
    frame, rng = Frame(torch.rand(1, 224, 224)), np.random.RandomState(0)
    make = RandomInnerShape(compat="published", area=(0.02, 0.02), aspect=(0.3, 0.3))
    with pytest.raises(ValueError, match=r'compat="published" takes a margin of 10 pixels .* \(59, 17\) .* resize'):
        make(rng, frame)
    shape = make(rng, Frame(torch.rand(1, 512, 512)))
    rows, columns = np.nonzero(shape.mask)
    assert [np.ptp(rows), np.ptp(columns)] == [n - 1 - 20 for n in shape.mask.shape]
    scaled = RandomInnerShape(area=(0.02, 0.02), aspect=(0.3, 0.3))(rng, Frame(torch.rand(1, 512, 512)))
    assert np.ptp(np.nonzero(scaled.mask)[1]) == max(np.ptp(columns) - 20, 2)


def test_no_dark_halo_but_in_the_published_edition() -> None:
    image, lungs = torch.full((1, 260, 260), 0.8), torch.ones(1, 260, 260)
    image[:, ::2] = 0.9
    settings: dict[str, Any] = {"blur": (14, 14), "jitter": 0, "clip": None}
    for seed in range(5):
        ours = RandAnatPaste(**settings).set_random_state(seed)(image, lungs)
        assert float(ours["image"].min()) >= 0.8 - 1e-6
        published = RandAnatPaste(compat="published", **settings).set_random_state(seed)(image, lungs)
        assert float(published["image"].min()) < 0.75


def test_too_little_in_the_lungs_is_drawn_again() -> None:
    image, _ = scene(shape=(256, 256))
    lungs = torch.zeros(1, 256, 256, dtype=torch.bool)
    lungs[:, 100:105, 100:110] = True  # 50 pixels
    sums: dict[Any, list[float]] = {None: [], "published": []}
    for compat, values in sums.items():
        paste = RandAnatPaste(labeller=weight_label, tolerance=0, compat=compat).set_random_state(0)
        values += [float(paste(image, lungs)["label"].sum()) for _ in range(30)]
    assert min(sums[None]) > 24.5
    assert 0 < min(sums["published"]) < 20


def test_lungs_too_small_to_show_anything_leave_the_image_as_it_is() -> None:
    image, _ = scene(shape=(256, 256))
    lungs = torch.zeros(1, 256, 256, dtype=torch.bool)
    lungs[:, 100:103, 100:106] = True
    sample = RandAnatPaste(max_attempts=20).set_random_state(0)(image, lungs)
    assert sample["target"] == 0 and torch.equal(sample["image"], image) and not sample["label"].any()
    half = RandAnatPaste(max_attempts=20, min_visible=5).set_random_state(0)(image, lungs)
    assert half["target"] == 1


def test_image_without_lungs() -> None:
    image, lungs = scene(shape=(256, 256))
    none = torch.zeros_like(lungs)
    sample = RandAnatPaste().set_random_state(0)(image, none)
    assert sample["target"] == 0 and torch.equal(sample["image"], image) and not sample["support"].any()
    published = RandAnatPaste(compat="published").set_random_state(0)
    changed = torch.stack([(published(image, none)["image"] != image)[0] for _ in range(60)]).any(0)
    assert changed.float().mean() > 0.9
    with pytest.raises(ValueError, match="foreground .* is empty"):
        RandAnatPaste(on_empty="raise")(image, none)


def test_finds_the_lungs_by_itself(shared_data: Path) -> None:
    path = shared_data / "cxr" / "images"
    pixels = np.array(Image.open(sorted(path.glob("nih*.png"))[0]).convert("L"), dtype=np.float32)
    image = torch.from_numpy(pixels / 255)[None]
    lungs = LungMask()(image)
    assert lungs.any()
    by_itself = RandAnatPaste().set_random_state(1)(image)
    given = RandAnatPaste(foreground=None).set_random_state(1)(image, lungs)
    assert torch.equal(by_itself["image"], given["image"]) and by_itself["target"] == 1
    assert not (by_itself["support"] & ~lungs).any()
    everywhere = [RandAnatPaste(foreground=None).set_random_state(s)(image)["support"] & ~lungs for s in range(3)]
    assert any(bool(outside.any()) for outside in everywhere)


def test_published_edition_has_the_published_lung_mask() -> None:
    assert RandAnatPaste(compat="published").foreground.compat == "anatpaste"  # type: ignore[union-attr]
    assert RandAnatPaste().foreground.compat is None  # type: ignore[union-attr]


@pytest.mark.parametrize("channels", [2, 3])
def test_channels_share_weight_and_place(channels: int) -> None:
    image, lungs = scene(channels)
    settings: dict[str, Any] = {"labeller": weight_label, "jitter": 0, "tolerance": 0, "clip": None}
    together = RandAnatPaste(**settings).set_random_state(2)(image, lungs)
    for channel in range(channels):
        alone = RandAnatPaste(**settings).set_random_state(2)(image[channel : channel + 1], lungs)
        assert torch.allclose(alone["image"][0], together["image"][channel], atol=1e-6)
        assert torch.allclose(alone["label"], together["label"], atol=1e-6)


def test_color_of_rgb_patches_is_jittered() -> None:
    gray, lungs = scene()
    image = torch.cat([gray, gray * 0.5, gray * 0.2])
    sample = RandAnatPaste(jitter=0.5, blur=(0, 0), opacity=(255, 255)).set_random_state(0)(image, lungs)
    inside = sample["support"][0]
    ratio = sample["image"][1][inside] / sample["image"][0][inside]
    assert (ratio - 0.5).abs().median() > 0.02


def test_value_range_only_relabels_intensities() -> None:
    image, lungs = scene()
    first = RandAnatPaste().set_random_state(4)(image, lungs)
    second = RandAnatPaste(value_range=(-1, 1)).set_random_state(4)(image * 2 - 1, lungs)
    assert torch.allclose(first["image"] * 2 - 1, second["image"], atol=1e-5)
    assert (first["support"] != second["support"]).float().mean() < 1e-3
    published = [
        RandAnatPaste(value_range=r, compat="published", clip=None).set_random_state(4)(x, m)
        for (x, m) in [scene(shape=(256, 256))]
        for r, x in (((0, 1), x), ((-1, 1), x * 2 - 1))
    ]
    assert torch.allclose(published[0]["image"] * 2 - 1, published[1]["image"], atol=1e-5)


def test_labeller_sees_the_weight_in_the_support_only() -> None:
    image, lungs = scene()
    seen = []
    paste = RandAnatPaste(labeller=lambda change, support, weight: (seen.append((support, weight)), support.float())[1])
    paste.set_random_state(0)(image, lungs)
    ((support, weight),) = seen
    assert torch.equal(weight > 0, support) and len(weight.unique()) > 20


def test_several_anomalies_keep_the_larger_weight() -> None:
    image, lungs = scene()
    paste = RandAnatPaste(max_anomalies=3, labeller=weight_label).set_random_state(3)
    for _ in range(10):
        sample = paste(image, lungs)
        drawn = json.loads(sample["params"])
        assert float(sample["label"].max()) <= max(d["weight"] for d in drawn) + 1e-6
        assert torch.equal(sample["label"] > 0, sample["support"])
    assert len(drawn) >= 1


@pytest.mark.parametrize("compat", [None, "published"])
def test_a_batch_gets_what_single_images_get(compat: str | None) -> None:
    scenes = [scene(shape=(256, 250), seed=seed) for seed in range(4)]
    images, masks = (torch.stack(part) for part in zip(*scenes, strict=True))
    settings: dict[str, Any] = {"labeller": weight_label, "compat": compat}
    batch = BatchAnomaly(RandAnatPaste(**settings))
    batch.set_random_state(7)
    together = batch(images, masks)
    single = RandAnatPaste(**settings).set_random_state(7)
    for row, (image, lungs) in enumerate(scenes):
        alone = single(image, lungs)
        assert torch.allclose(together["image"][row], alone["image"], atol=1e-6)
        assert torch.allclose(together["label"][row], alone["label"], atol=1e-6)
        assert together["params"][row] == alone["params"]


def test_constant_image_counts_as_healthy() -> None:
    image, lungs = torch.full((1, *SHAPE), 0.4), scene()[1]
    sample = RandAnatPaste().set_random_state(0)(image, lungs)
    assert sample["target"] == 0 and torch.equal(sample["image"], image) and not sample["label"].any()


def test_same_state_same_anomaly_and_input_not_modified() -> None:
    image, lungs = scene()
    before = image.clone()
    first, second = (RandAnatPaste().set_random_state(5)(image, lungs) for _ in range(2))
    other = RandAnatPaste().set_random_state(6)(image, lungs)
    assert torch.equal(first["image"], second["image"]) and first["params"] == second["params"]
    assert not torch.equal(first["image"], other["image"]) and torch.equal(image, before)


def test_dictionary_version_reads_a_mask_that_was_found_before() -> None:
    body = np.zeros((128, 128), dtype=np.float32)
    body[8:-8, 8:-8] = 0.8
    body[30:90, 25:55] = body[30:90, 70:100] = 0.15
    body += 0.01 * np.random.RandomState(0).rand(128, 128).astype(np.float32)
    pipeline = Compose([LungMaskd(), RandAnatPasted(foreground_key="foreground")]).set_random_state(0)
    sample = pipeline({"image": MetaTensor(torch.from_numpy(body)[None])})
    assert sample["target"] == 1 and sample["foreground"].any()
    assert not (sample["support"] & ~sample["foreground"]).any() and isinstance(sample["image"], MetaTensor)
    assert torch.equal(sample["clean"], torch.from_numpy(body)[None])


def test_workers_draw_different_and_reproducible_anomalies() -> None:
    image, lungs = scene(shape=(32, 32))
    items = [{"image": image, "foreground": lungs} for _ in range(8)]
    runs = []
    for _ in range(2):
        dataset = Dataset(items, Compose([RandAnatPasted(foreground_key="foreground")]))
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(dataset, batch_size=1, num_workers=2, generator=generator)
        runs.append([batch["params"][0] for batch in loader])
    assert runs[0] == runs[1] and len(set(runs[0])) == 8


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"RandAnatPaste is defined for 2D images \(C, \*S\)"):
        RandAnatPaste()(torch.rand(1, 8, 8, 8))
    with pytest.raises(ValueError, match=r"foreground must be one of \('lungs',\), got 'brain'"):
        RandAnatPaste(foreground="brain")
    with pytest.raises(ValueError, match=r"compat must be one of \(None, 'published'\), got 'upd'"):
        RandAnatPaste(compat="upd", foreground=None)
    for name, value in (
        ("margin", -1),
        ("ellipse_prob", 1.5),
        ("min_visible", -1),
        ("reference_size", 0),
        ("blur", (-1, 3)),
        ("opacity", (0, 300)),
        ("opacity", (0.5, 0.9)),
        ("blur", (0.5, 3)),
        ("blur", (0, float("inf"))),
        ("area", (0.1, 2)),
        ("aspect", (0, 1)),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            RandAnatPaste(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"strength must be in \[0, 0.5\], got 0.7"):
        RandAnatPaste(jitter=0.7)
    with pytest.raises(ValueError, match="give it shapes of RandomInnerShape"):
        PasteSoft().draw(
            np.random.RandomState(0), Patch((0, 0), np.ones((3, 3), dtype=bool)), Frame(torch.rand(1, 8, 8))
        )
