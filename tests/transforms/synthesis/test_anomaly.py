# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What a corruption does with its parts: when it draws again, gives up, clips, undoes and labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Resized

from monai_anomaly.functional import flipped_gaussian_label, intensity_label
from monai_anomaly.transforms import (
    BatchAnomaly,
    FixedPlacement,
    Frame,
    Patch,
    RandAnomaly,
    RandAnomalyMixture,
    RandCutPaste3Way,
    RandCutPasteUnion,
    RandFPI,
    RandFPId,
    RandFractalIntensity,
    RandomDeformedShape,
    RandSinkDeform,
    RandSinkDeformd,
    RandSmoothIntensity,
    UniformPlacement,
    fold_data,
    many_tasks,
    task_folds,
)


class Add:
    """Adds a field of numbers to the box."""

    smallest = 1
    voxels = False

    def __init__(self, values: Any) -> None:
        self.values = values

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch:
        return patch

    def apply(self, batch: Any) -> torch.Tensor:
        return batch.boxes + self.values


class Mask:
    """Always the same mask; counts how often it was asked."""

    def __init__(self, mask: np.ndarray) -> None:
        self.mask, self.asked = mask, 0

    def __call__(self, rng: np.random.RandomState, frame: Frame) -> np.ndarray:
        self.asked += 1
        return self.mask


def square(values: Any, mask: np.ndarray | None = None, **kwargs: Any) -> RandAnomaly:
    """An anomaly in the image of 6 x 6 that adds numbers inside a mask."""
    mask = np.ones((6, 6), dtype=bool) if mask is None else mask
    return RandAnomaly(Mask(mask), FixedPlacement(), Add(values), **kwargs)


def ramp() -> torch.Tensor:
    return torch.linspace(0.1, 0.7, 36).reshape(1, 6, 6)


@pytest.mark.parametrize(
    ("clip", "low", "high"),
    [("channel", [0.1, 0.2], [0.7, 0.8]), ("sample", [0.1] * 2, [0.8] * 2), ((0, 1), [0] * 2, [1] * 2)],
)
def test_clip(clip: Any, low: Sequence[float], high: Sequence[float]) -> None:
    image = torch.cat([ramp(), ramp() + 0.1])
    field = torch.full((1, 2, 6, 6), 5.0)
    field[..., :3] = -5
    result = square(field, clip=clip)(image)["image"]
    torch.testing.assert_close(result.amin((1, 2)), torch.tensor(low, dtype=torch.float32))
    torch.testing.assert_close(result.amax((1, 2)), torch.tensor(high, dtype=torch.float32))
    assert float(square(field, clip=None)(image)["image"].max()) > 5


def test_small_changes_outside_the_mask_are_undone_and_large_ones_belong_to_the_anomaly() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[1, 1] = True
    field = torch.zeros(6, 6)
    field[1, 1], field[2, 2], field[3, 3] = 5e-4, 5e-4, 0.05
    result = square(field, mask, clip=None)(ramp())
    changed = (result["image"] != ramp())[0].nonzero().tolist()
    assert changed == result["support"][0].nonzero().tolist() == [[1, 1], [3, 3]]
    wide = square(field * 255, mask, clip=None, value_range=(0, 255))(ramp() * 255)
    assert wide["support"][0].nonzero().tolist() == [[1, 1], [3, 3]]
    strict = square(field, mask, clip=None, tolerance=0.0)(ramp())
    assert strict["support"][0].nonzero().tolist() == [[1, 1], [2, 2], [3, 3]]


def test_keep_mask_labels_all_of_the_mask_unless_nothing_changed() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[1:3, 1:3] = True
    field = torch.zeros(6, 6)
    field[1, 1] = 0.2
    assert int(square(field, mask, clip=None)(ramp())["label"].sum()) == 1
    assert int(square(field, mask, clip=None, keep_mask=True)(ramp())["label"].sum()) == 4
    nothing = square(field * 0, mask, clip=None, keep_mask=True)(ramp())
    assert nothing["target"] == 0 and not nothing["label"].any()


def test_what_gets_no_label_becomes_what_it_was() -> None:
    def only_strong(change: torch.Tensor, support: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (change > 0.1).float()

    field = torch.full((6, 6), 0.05)
    field[2, 3] = 0.2
    result = square(field, clip=None, labeller=only_strong)(ramp())
    assert (result["image"] != ramp())[0].nonzero().tolist() == [[2, 3]]
    weak = square(field.clamp(max=0.05), clip=None, labeller=only_strong)(ramp())
    assert weak["target"] == 0 and bool((weak["image"] == ramp()).all())


def test_prob() -> None:
    transform = square(0.2, clip=None, prob=0.3).set_random_state(0)
    share = np.mean([transform(ramp())["target"] for _ in range(600)])
    assert abs(share - 0.3) < 0.06


@pytest.mark.parametrize(("on_empty", "made"), [("ignore", 1), ("skip", 0)])
def test_empty_foreground(on_empty: str, made: int) -> None:
    assert square(0.2, clip=None, on_empty=on_empty)(ramp(), torch.zeros(1, 6, 6))["target"] == made


def test_empty_foreground_is_an_error_that_names_the_file() -> None:
    scan = MetaTensor(ramp(), meta={"filename_or_obj": "scan.png"})
    with pytest.raises(ValueError, match="foreground of image scan.png is empty"):
        square(0.2, on_empty="raise")(scan, torch.zeros(1, 6, 6))


def test_shapes_that_find_no_place_do_not_cost_all_attempts() -> None:
    shape = Mask(np.ones((8, 8), dtype=bool))  # larger than the image
    transform = RandAnomaly(shape, UniformPlacement(), Add(1.0), max_attempts=200)
    assert transform(ramp())["target"] == 0
    assert shape.asked == 5
    empty = Mask(np.zeros((2, 2), dtype=bool))
    assert RandAnomaly(empty, UniformPlacement(), Add(1.0), max_attempts=30)(ramp())["target"] == 0
    assert empty.asked == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_empty": "stop"}, "on_empty must be one of"),
        ({"clip": "all"}, "clip must be one of"),
        ({"clip": (1, 0)}, "two ascending numbers"),
        ({"tolerance": -1}, "tolerance must be 0 or more"),
        ({"value_range": (1, 1)}, "value_range must be two different numbers"),
        ({"max_anomalies": 0}, "max_anomalies must be a whole number of 1 or more"),
        ({"max_anomalies": 1.5}, "max_anomalies must be a whole number of 1 or more"),
        ({"max_attempts": 0}, "max_attempts must be a whole number of 1 or more"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        square(0.2, **arguments)


def test_a_slice_indexed_out_of_a_volume_has_no_spacing() -> None:
    volume = MetaTensor(torch.rand(1, 24, 24, 6), affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))
    assert RandSmoothIntensity().set_random_state(0)(volume[..., 3])["target"] == 1
    with pytest.raises(ValueError, match='unit="mm" needs a MetaTensor'):
        RandSmoothIntensity(shape=RandomDeformedShape((3, 9), (2, 1, 3), unit="mm"))(volume[..., 3])


def test_the_edition_sets_the_push_of_a_warp_alone() -> None:
    alone, task = RandSinkDeform(edition="diffusion"), many_tasks(edition="diffusion")[2]
    assert alone.corruptor.push == task.corruptor.push == (0.5 / 128, 5 / 128)
    assert RandSinkDeform().corruptor.push == (0.5 / 256, 10 / 256)
    with pytest.raises(ValueError, match="edition must be one of"):
        RandSinkDeform(edition="2023")


def test_the_diffusion_edition_labels_only_what_changed() -> None:
    image = torch.zeros(1, 64, 64)
    image[:, 16:48, 16:48] = 0.5
    image[:, 30:34, 30:34] = 1.0
    for seed in range(12):
        result = RandFractalIntensity().set_random_state(seed)(image)
        assert bool(((result["image"] != image) == result["support"]).all())


def test_shapes_of_the_diffusion_edition_can_be_seen() -> None:
    mask = np.zeros((200, 200), dtype=bool)
    mask[:100, :100] = True
    frame = Frame(torch.zeros(1, 200, 200), mask)
    part, rng = RandomDeformedShape(bounds=(0.0, 0.05), relative_to="foreground"), np.random.RandomState(0)
    drawn = [part(rng, frame) for _ in range(200)]
    assert all(shape is None or shape.mask.sum() >= 0.02**2 * 100**2 for shape in drawn)
    with pytest.raises(ValueError, match="counts in fractions"):
        RandomDeformedShape((3, 9), (2, 1, 3), relative_to="foreground", unit="mm")


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (lambda: RandomDeformedShape(unit="mm"), "bounds and gamma"),
        (lambda: RandomDeformedShape((5, 9), unit="voxel"), "gamma"),
        (lambda: RandFPI(unit="mm"), "half_width"),
        (lambda: RandSinkDeform(push_unit="mm"), "push"),
    ],
)
def test_default_sizes_are_fractions_and_nothing_else(make: Any, missing: str) -> None:
    with pytest.raises(ValueError, match=f"defaults are fractions of the image: with unit='.*' give {missing}$"):
        make()


def test_an_image_far_beyond_the_value_range_is_told_once() -> None:
    scan = MetaTensor(ramp() * 300, meta={"filename_or_obj": "scan.png"})
    transform = square(0.2)
    with pytest.warns(
        UserWarning, match=r"scan.png holds values from 30 to 210, far beyond the value_range \(0.0, 1.0\)"
    ):
        transform(scan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transform(scan)
        square(0.2, value_range=(0, 255))(scan)
        square(0.2)(ramp() * 2 - 0.5)  # a little beyond is no mistake


def test_transforms_before_a_corruption_can_be_undone() -> None:
    scan = MetaTensor(torch.rand(1, 20, 30), affine=torch.eye(4))
    pipeline = Compose([Resized("image", spatial_size=(10, 15)), RandSinkDeformd("image")])
    result = pipeline({"image": scan})
    assert pipeline.inverse(result)["image"].shape == (1, 20, 30)


def test_a_sample_is_corrupted_once() -> None:
    twice = Compose([RandSinkDeformd("image"), RandSinkDeformd("image")])
    with pytest.raises(RuntimeError) as caught:
        twice({"image": torch.rand(1, 20, 20)})
    assert "corrupted before" in str(caught.value.__cause__)


class Wrong:
    """A corruptor with a mistake."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch:
        return patch

    def apply(self, batch: Any) -> torch.Tensor:
        return self.result(batch.boxes)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda boxes: boxes.mean((2, 3)),
            r"Wrong.apply must return as many values as it got, \(1, 1, 6, 6\), but returned",
        ),
        (lambda boxes: boxes * torch.nan, "Wrong.apply returned NaN or infinite values"),
    ],
)
def test_mistakes_of_an_own_corruptor(result: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandAnomaly(Mask(np.ones((6, 6), dtype=float)), FixedPlacement(), Wrong(result))(ramp())


class MeanFill:
    """Sets the voxels of a list to their mean."""

    smallest, voxels = 1, True

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch:
        return patch

    def apply(self, batch: Any) -> torch.Tensor:
        counted = batch.values * batch.named_once
        mean = counted.sum(-1, keepdim=True) / batch.named_once.sum(-1, keepdim=True)
        return mean.expand_as(batch.values)


def test_an_own_corruptor_of_lists_of_voxels_gives_the_same_alone_and_in_a_batch() -> None:
    images = torch.rand(6, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    corruption = RandAnomaly(RandomDeformedShape(), UniformPlacement(), MeanFill())
    alone = [corruption.set_random_state(3)(images[0]), *(corruption(image) for image in images[1:])]
    together = BatchAnomaly(corruption).set_random_state(3)(images)
    for row, sample in enumerate(alone):
        torch.testing.assert_close(together["image"][row], sample["image"])
        inside = sample["support"]
        assert float(sample["image"][inside].std()) < 1e-6


def test_sources_that_are_no_images() -> None:
    with pytest.raises(ValueError, match="source 0 must be a tensor .* got NoneType: put a datalist .* ImageSource"):
        RandFPI([{"file": "scan.png"}])(ramp())
    with pytest.raises(ValueError, match='key "image": the sample has no "other"'):
        RandFPId("image", source_key="other")({"image": ramp()})


def test_what_cannot_be_batched() -> None:
    for given in (RandFPId("image"), RandCutPaste3Way()):
        with pytest.raises(ValueError, match="corruption must be the array version of one, got Rand"):
            BatchAnomaly(given)
    with pytest.raises(ValueError, match="at least two images"):
        BatchAnomaly(RandAnomalyMixture(many_tasks()))(torch.rand(1, 1, 32, 32))
    source = torch.rand(3, 1, 32, 32)
    assert BatchAnomaly(RandFPI(source=list(source))).set_random_state(0)(torch.rand(1, 1, 32, 32))["target"].shape == (
        1,
    )


def test_results_share_no_memory_with_the_image() -> None:
    image = ramp()
    kept, array = image.clone(), image.numpy().copy()
    for given in (image, array, MetaTensor(image)):
        result = square(0.1, clip=None)(given)
        for key in ("image", "clean"):
            result[key].zero_()
        assert bool((torch.as_tensor(given) == kept).all())
    batch = kept[None].repeat(2, 1, 1, 1)
    BatchAnomaly(square(0.1))(batch)["clean"].zero_()
    assert bool((batch == kept).all())
    first, *rest = RandCutPaste3Way()(torch.rand(1, 32, 32))
    first["clean"].zero_()
    assert all(bool(sample["clean"].any()) for sample in rest)


def test_reduced_precision_around_a_corruption_changes_nothing() -> None:
    images = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    for task in many_tasks():
        plain = BatchAnomaly(task).set_random_state(1)(images)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = BatchAnomaly(task).set_random_state(1)(images)
        assert bool((plain["image"] == reduced["image"]).all())


def test_labels_count_changes_as_fractions_of_the_value_range() -> None:
    image = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0))
    for labeller in (intensity_label, flipped_gaussian_label):
        small = RandSmoothIntensity(labeller=labeller).set_random_state(2)(image)["label"]
        large = RandSmoothIntensity(labeller=labeller, value_range=(0, 255)).set_random_state(2)(image * 255)["label"]
        torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-3)


def test_foregrounds_that_do_not_fit() -> None:
    source = [{"image": torch.rand(1, 24, 24), "foreground": torch.ones(1, 20, 12)}]
    with pytest.raises(ValueError, match=r"foreground of source 0 is of size \(20, 12\), but its image of \(24, 24\)"):
        RandFPI(source)(torch.rand(1, 24, 24))
    with pytest.raises(ValueError, match="2 images need a foreground of as many, got 1"):
        BatchAnomaly(square(0.1))(torch.rand(2, 1, 6, 6), torch.ones(1, 1, 6, 6))
    with pytest.raises(ValueError, match="source 0 is empty or holds NaN"):
        RandFPI([torch.full((1, 24, 24), torch.nan)])(torch.rand(1, 24, 24))


def test_a_mixture_takes_single_corruptions() -> None:
    with pytest.raises(ValueError, match="single corruptions, got RandCutPasteUnion"):
        RandAnomalyMixture([RandSinkDeform(), RandCutPasteUnion()])
    with pytest.raises(ValueError, match="sum 1"):
        RandAnomalyMixture([RandSinkDeform()], probs=[float("nan")])


def test_folds_share_neither_tasks_nor_images() -> None:
    items = list(range(23))
    parts = np.array_split(items, 5)
    for train_tasks, validation_tasks in task_folds():
        train, validation = fold_data(items, train_tasks)
        assert train == [item for task in train_tasks for item in parts[task]]
        assert validation == [item for task in validation_tasks for item in parts[task]]
    train, validation = fold_data(items, (4,))  # the smaller part validates
    assert validation == list(parts[4]) and sorted(train + validation) == items
    with pytest.raises(ValueError, match="4 items cannot be cut into 5 parts"):
        fold_data(items[:4], (0, 1, 2))
