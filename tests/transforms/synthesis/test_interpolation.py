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
from pictures import boxes_of, drawn, pictures, radiographs
from torch import Tensor

from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.interpolation import RandFPI, RandFPId, RandPII, RandPIId
from monai_anomaly.transforms.synthesis.plan import Plan

BOTH = pytest.mark.parametrize("method", [RandFPI, RandPII])
SIZES = pytest.mark.parametrize("size", [(40, 40), (36, 50), (24, 20, 28)])


@SIZES
def test_fpi_mixes_the_box_and_labels_it_with_the_weight(size: tuple[int, ...]) -> None:
    own, foreign = pictures(2, *size)
    method = RandFPI([foreign]).set_random_state(1)
    for _ in range(5):
        sample = method(own)
        box, alpha = drawn(sample)
        differs = torch.zeros(1, *size, dtype=torch.bool)
        differs[(0, *box)] = (own - foreign).abs().mean(0)[box] > 1e-3
        wanted = torch.where(differs, (1 - alpha) * own + alpha * foreign, own)
        torch.testing.assert_close(sample["image"], wanted)
        torch.testing.assert_close(sample["label"], alpha * differs)
        assert torch.equal(sample["support"], differs) and sample["target"] == 1
        assert 0.05 <= alpha <= 0.95


@SIZES
def test_a_swapped_pair_is_complementary(size: tuple[int, ...]) -> None:
    own, foreign = pictures(1, *size)
    method = RandFPI()
    plans = [method.plan(np.random.RandomState(7), x, None, [y]) for x, y in ((own, foreign), (foreign, own))]
    assert plans[0].patches[0].weight == plans[1].patches[0].weight
    result = method.apply(torch.stack([own, foreign]), plans)
    torch.testing.assert_close(result["image"].sum(0), own + foreign)
    assert result["support"].any() and torch.equal(result["label"][0], result["label"][1])


@BOTH
@pytest.mark.parametrize("image", [pictures(1, 32, 32)[0], torch.full((1, 32, 32), 0.4)])
def test_where_the_images_are_equal_there_is_no_anomaly(method: type[RandFPI | RandPII], image: Tensor) -> None:
    sample = method([image.clone()]).set_random_state(0)(image)
    assert sample["target"] == 0 and not sample["label"].any() and not sample["support"].any()
    assert torch.equal(sample["image"], image)


@BOTH
def test_an_image_drawn_as_its_own_source_is_drawn_again(method: type[RandFPI | RandPII]) -> None:
    own, foreign = pictures(1, 32, 32)
    transform = method([own, foreign]).set_random_state(0)
    assert [json.loads(transform(own)["params"])[0]["source"] for _ in range(10)] == [1] * 10


@BOTH
def test_constant_images(method: type[RandFPI | RandPII]) -> None:
    own, foreign = torch.full((1, 32, 32), 0.4), torch.full((1, 32, 32), 0.6)
    sample = method([foreign]).set_random_state(0)(own)
    assert torch.isfinite(sample["image"]).all()
    assert sample["target"] == (method is RandFPI)  # there is no gradient to blend
    assert sample["target"] == 1 or torch.equal(sample["image"], own)


def test_equal_halves_of_two_images_get_no_label() -> None:
    own, foreign = pictures(1, 32, 32)
    foreign[..., :16] = own[..., :16] + 5e-4  # below the tolerance
    for seed in range(10):
        sample = RandFPI([foreign], core=0.2).set_random_state(seed)(own)
        assert not sample["label"][..., :16].any()
        assert torch.equal(sample["image"][..., :16], own[..., :16])


@pytest.mark.parametrize("compat", [None, "published"])
def test_the_published_comparison_rounds_down_first(compat: str | None) -> None:
    own = torch.full((1, 30, 30), 0.09)
    near, same, far = torch.full((1, 30, 30), 0.11), torch.full((1, 30, 30), 0.01), torch.full((1, 30, 30), 0.25)
    made = [
        RandFPI([other], tolerance=0.1, compat=compat).set_random_state(0)(own)["target"] for other in (near, same, far)
    ]
    assert made == ([0, 0, 1] if compat is None else [1, 0, 1])


@pytest.mark.parametrize("compat", [None, "published"])
def test_the_published_comparison_looks_at_any_channel(compat: str | None) -> None:
    own, foreign = torch.full((3, 30, 30), 0.05), torch.full((3, 30, 30), 0.05)
    foreign[1] = 0.2
    sample = RandFPI([foreign], tolerance=0.1, compat=compat).set_random_state(0)(own)
    assert sample["target"] == (compat == "published")


def test_published_pairs_are_mixed_where_they_get_no_label() -> None:
    own, foreign = pictures(1, 30, 30)
    default, published = (
        RandFPI([foreign], tolerance=0.1, compat=compat).set_random_state(0)(own) for compat in (None, "published")
    )
    box, alpha = drawn(published)
    mixed = own.clone()
    mixed[(0, *box)] += alpha * (foreign - own)[(0, *box)]
    torch.testing.assert_close(published["image"], mixed)
    assert ((published["image"] != own) & ~published["support"]).any()
    assert not ((default["image"] != own) & ~default["support"]).any()


def test_without_a_tolerance_any_difference_counts() -> None:
    own = torch.full((1, 30, 30), 0.5)
    for compat in (None, "published"):
        sample = RandFPI([own + 1e-5], tolerance=0.0, compat=compat).set_random_state(0)(own)
        assert sample["target"] == 1


def test_the_tolerance_is_a_fraction_of_the_value_range() -> None:
    own = torch.full((1, 30, 30), 100.0)
    made = [
        RandFPI([own + difference], tolerance=0.1, value_range=(0, 255)).set_random_state(0)(own)["target"]
        for difference in (25.0, 26.0)
    ]
    assert made == [0, 1]


def test_the_classes_are_the_quarters_of_the_foreign_weight() -> None:
    own, foreign = pictures(1, 40, 40)
    method = RandFPI([foreign], label="classes").set_random_state(0)
    found = set()
    for _ in range(30):
        sample = method(own)
        _, alpha = drawn(sample)
        classes = 4 * sample["label"]
        assert set(classes.unique().tolist()) <= {0.0, 4 * alpha}
        inside = sample["label"] > 0
        torch.testing.assert_close(sample["image"][inside], ((1 - alpha) * own + alpha * foreign)[inside])
        found.add(int(classes.max()))
    assert found == {1, 2, 3, 4}


@BOTH
def test_a_binary_label_is_the_support(method: type[RandFPI | RandPII]) -> None:
    own, foreign = pictures(1, 40, 40)
    soft, hard = (method([foreign], label=label).set_random_state(2)(own) for label in ("factor", "binary"))
    assert torch.equal(hard["label"], soft["support"].float())
    assert torch.equal(hard["image"], soft["image"])
    assert 0 < float(soft["label"].max()) < 1


@BOTH
def test_the_box_is_square_and_its_center_in_the_core(method: type[RandFPI | RandPII]) -> None:
    image = torch.zeros(1, 100, 60)
    corner, size = boxes_of(method(core=0.2), image)
    assert (size[:, 0] == size[:, 1]).all() and (size % 2 == 0).all()
    assert set(size[:, 0] // 2) == set(range(5, 20))  # of the first axis, the largest left out
    center = corner + size // 2
    assert (center.min(0) == [40, 24]).all() and (center.max(0) == [59, 35]).all()


@BOTH
def test_a_box_may_have_a_half_width_of_its_own_on_each_axis(method: type[RandFPI | RandPII]) -> None:
    _, size = boxes_of(method(core=0.1, cube=False, half_width=(0.1, 0.2)), torch.zeros(1, 100, 60))
    assert set(size[:, 0] // 2) == set(range(10, 20)) and set(size[:, 1] // 2) == set(range(6, 12))
    assert (size[:, 0] != size[:, 1]).any()


@BOTH
def test_half_widths_in_voxels_and_in_millimeters(method: type[RandFPI | RandPII]) -> None:
    image = MetaTensor(torch.zeros(1, 80, 80), affine=torch.diag(torch.tensor([2.0, 0.5, 1.0])))
    _, size = boxes_of(method(core=0.1, half_width=(3, 5), unit="voxel"), image, 40)
    assert set(size.flatten() // 2) == {3, 4}
    _, size = boxes_of(method(core=0.1, half_width=(8, 8), unit="mm"), image, 3)
    assert (size == [8, 32]).all()
    with pytest.raises(ValueError, match="mm"):
        method(unit="mm").plan(np.random.RandomState(0), torch.zeros(1, 80, 80), None, [image + 1])


def test_a_patch_at_the_border_stays_at_the_same_place_in_both_images() -> None:
    own, foreign = pictures(1, 24, 24)
    method = RandFPI([foreign], core=1.0, half_width=(0.3, 0.4)).set_random_state(0)
    cut = 0
    for _ in range(20):
        sample = method(own)
        box, alpha = drawn(sample)
        cut += box[0].stop - box[0].start != box[1].stop - box[1].start
        inside = sample["label"] > 0
        torch.testing.assert_close(sample["image"][inside], ((1 - alpha) * own + alpha * foreign)[inside])
    assert cut > 5


@BOTH
def test_a_patch_larger_than_the_image_is_the_image(method: type[RandFPI | RandPII]) -> None:
    own, foreign = pictures(1, 20, 12)
    sample = method([foreign], half_width=(1.5, 2.0)).set_random_state(0)(own)
    assert drawn(sample)[0] == (slice(0, 20), slice(0, 12))
    assert sample["target"] == 1


@BOTH
def test_the_center_lies_in_the_foreground(method: type[RandFPI | RandPII]) -> None:
    own, foreign = pictures(1, 40, 40)
    spot = torch.zeros(1, 40, 40)
    spot[0, 14, 22] = 1  # an object of one pixel
    sample = method([foreign], max_attempts=3000, core=0.5).set_random_state(0)(own, spot)
    (rows, columns), _ = drawn(sample)
    assert ((rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2) == (14, 22)


@BOTH
@pytest.mark.parametrize("on_empty", ["ignore", "skip"])
def test_an_empty_foreground(method: type[RandFPI | RandPII], on_empty: str) -> None:
    own, foreign = pictures(1, 40, 40)
    sample = method([foreign], on_empty=on_empty).set_random_state(0)(own, torch.zeros(1, 40, 40))
    assert sample["target"] == (on_empty == "ignore")
    assert sample["target"] == 1 or torch.equal(sample["image"], own)


@BOTH
@pytest.mark.parametrize("shape", [(1, 30, 44), (3, 24, 24), (1, 14, 16, 18)])
def test_a_batch_gets_what_its_images_get_alone(method: type[RandFPI | RandPII], shape: tuple[int, ...]) -> None:
    images = torch.stack(pictures(*shape, number=4))
    settings: dict[str, Any] = {"half_width": (0.15, 0.3), "max_anomalies": 3}
    batch = BatchAnomaly(method(**settings))
    batch.set_random_state(5)
    result = batch(images)
    single, rng = method(**settings), np.random.RandomState(5)
    for row, image in enumerate(images):
        others = [other for at, other in enumerate(images) if at != row]
        plan: Plan = single.plan(rng, image, None, others)
        alone = single.apply(image[None], [plan])
        assert json.loads(result["params"][row]) == json.loads(json.dumps(plan.describe()))
        for key in ("image", "label"):
            torch.testing.assert_close(result[key][row], alone[key][0], atol=1e-5, rtol=0)
        assert result["target"][row] == alone["target"][0] == 1


@pytest.mark.parametrize(("method", "dictionary"), [(RandFPI, RandFPId), (RandPII, RandPIId)])
def test_the_dictionary_version_does_the_same(
    method: type[RandFPI | RandPII], dictionary: type[RandFPId | RandPIId]
) -> None:
    own, foreign = pictures(1, 32, 32)
    array = method(half_width=(0.2, 0.3)).set_random_state(8)(own, source=foreign)
    transform = dictionary("image", source_key="other", half_width=(0.2, 0.3))
    transform.set_random_state(8)
    sample = transform({"image": own, "other": foreign})
    for key in ("image", "label", "support", "clean"):
        assert torch.equal(sample[key], array[key])
    assert sample["target"] == 1 and sample["params"] == array["params"]


@BOTH
def test_images_of_different_sizes_are_refused(method: type[RandFPI | RandPII]) -> None:
    with pytest.raises(ValueError, match=r"source 0 is of size \(30, 31\)"):
        method([torch.zeros(1, 30, 31)])(torch.zeros(1, 31, 30))


@BOTH
def test_without_a_second_image_there_is_a_hint(method: type[RandFPI | RandPII]) -> None:
    with pytest.raises(ValueError, match="source="):
        method()(torch.zeros(1, 30, 30))


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "soft"},
        {"compat": "nsa"},
        {"unit": "cm"},
        {"core": 0.0},
        {"alpha": (0.5, 1.5)},
        {"half_width": (0.3, 0.1)},
        {"tolerance": -1.0},
    ],
)
def test_wrong_arguments_are_refused(method: type[RandFPI | RandPII], wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        method(**wrong)


@BOTH
def test_a_pair_of_chest_radiographs(method: type[RandFPI | RandPII], shared_data: Path) -> None:
    own, foreign = radiographs(shared_data)
    transform = method([foreign]).set_random_state(0)
    for _ in range(5):
        sample = transform(own)
        assert isinstance(sample["image"], MetaTensor) and sample["target"] == 1
        changed = (sample["image"] != own).any(0, keepdim=True)
        assert not changed[sample["label"] == 0].any()
        assert own.min() - 1e-6 <= sample["image"].min() and sample["image"].max() <= own.max() + 1e-6
        assert float(sample["label"].max()) == pytest.approx(drawn(sample)[1])
        area = float(sample["support"].float().mean())
        assert 0.5 * 0.1**2 < area < 0.4**2
