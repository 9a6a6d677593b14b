# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from monai_anomaly.functional.jitter import NAMES, jitter_color
from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.cut_paste import (
    RandCutPaste,
    RandCutPaste3Way,
    RandCutPasteScar,
    RandCutPasteUnion,
    RandomCuboid,
    RandomScar,
    other_corner,
)
from monai_anomaly.transforms.synthesis.plan import Frame


def frame(*size):
    return Frame(torch.zeros(1, *[1] * len(size)).expand(1, *size))


def unique_values(size, channels=1):
    """Images in [0, 1] of which no two voxels are alike."""
    values = torch.from_numpy(np.random.RandomState(0).permutation(channels * int(np.prod(size)))).float()
    return (values / values.max()).reshape(channels, *size)


def smooth(size, seed=0, channels=1):
    rng = np.random.RandomState(seed)
    values = np.stack([ndimage.gaussian_filter(rng.normal(size=size), 2) for _ in range(channels)])
    return torch.from_numpy((values - values.min()) / np.ptp(values)).float()


def drawn(result):
    (params,) = json.loads(result["params"])
    return params


def box_at(corner, size):
    return (slice(None), *(slice(low, low + n) for low, n in zip(corner, size, strict=True)))


# the shapes


def test_area_and_aspect_of_rectangles_on_an_image_that_is_not_square():
    rng = np.random.RandomState(0)
    sizes = np.array([RandomCuboid()(rng, frame(2000, 3000)).shape for _ in range(600)], dtype=float)
    area, aspect = sizes.prod(1) / 6e6, sizes[:, 1] / sizes[:, 0]
    assert stats.kstest(area, stats.uniform(0.02, 0.13).cdf).pvalue > 0.01
    assert stats.kstest(np.log(aspect), stats.uniform(np.log(0.3), -2 * np.log(0.3)).cdf).pvalue > 0.01


def test_the_aspect_of_the_paper_has_a_coin_for_the_side():
    rng = np.random.RandomState(0)
    sizes = np.array([RandomCuboid(distribution="paper")(rng, frame(3000, 3000)).shape for _ in range(600)], float)
    aspect = sizes[:, 1] / sizes[:, 0]
    wide = aspect > 1
    assert stats.binomtest(int(wide.sum()), 600).pvalue > 0.01
    assert stats.kstest(aspect[wide], stats.uniform(1, 10 / 3 - 1).cdf).pvalue > 0.01
    assert stats.kstest(aspect[~wide], stats.uniform(0.3, 0.7).cdf).pvalue > 0.01


def test_every_pair_of_axes_of_a_cuboid_keeps_the_aspect():
    rng = np.random.RandomState(0)
    masks = [RandomCuboid(aspect=(0.5, 2))(rng, frame(200, 150, 120)) for _ in range(200)]
    sizes = np.array([mask.shape for mask in masks if mask is not None], dtype=float)
    assert 100 < len(sizes) < 200
    for a, b in ((0, 1), (1, 2), (0, 2)):
        ratio = sizes[:, b] / sizes[:, a]
        assert 0.48 < ratio.min() < 0.6
        assert 1.7 < ratio.max() < 2.1
    share = sizes.prod(1) / (200 * 150 * 120)
    assert 0.019 < share.min() < 0.03
    assert 0.13 < share.max() < 0.155


def test_an_elongated_patch_is_cut_to_the_image_and_axes_are_not_swapped():
    rng = np.random.RandomState(0)
    sizes = np.array([RandomCuboid()(rng, frame(20, 400)).shape for _ in range(300)])
    assert sizes[:, 0].max() == 20
    assert sizes[:, 1].max() > 40
    sizes = np.array([RandomCuboid(aspect=(0.3, 1))(rng, frame(300, 300)).shape for _ in range(50)])
    assert (sizes[:, 0] >= sizes[:, 1]).all()  # aspect below 1: higher than wide


@pytest.mark.parametrize("size", [(256, 256), (128, 512)])
def test_scars_scale_with_each_axis_of_the_image(size):
    rng = np.random.RandomState(0)
    upright = np.array([2 * RandomScar()(rng, frame(*size)).half for _ in range(400)])
    assert (upright == upright.round()).all()
    length, width = upright.T * 256 / np.array(size)[:, None]
    assert 10 - 1 <= length.min() < 11.5
    assert 23.5 < length.max() <= 25 + 1
    assert 2 - 0.6 <= width.min() < 3
    assert 15 < width.max() <= 16.5


def test_scars_of_another_reference_size():
    """1-8 x 5-13 pixels at 128 are the paper's at 256."""
    rng, other = np.random.RandomState(0), np.random.RandomState(0)
    half = RandomScar(width=(1, 8), length=(5, 12.5), reference_size=128)
    assert all(
        (half(rng, frame(96, 160)).mask.shape) == RandomScar()(other, frame(96, 160)).mask.shape for _ in range(50)
    )


def test_a_scar_is_a_rotated_rectangle_in_its_tight_canvas():
    rng = np.random.RandomState(1)
    for _ in range(40):
        scar = RandomScar(width=(5, 16), length=(12, 25))(rng, frame(256, 256))
        assert scar.mask.any(0).all()
        assert scar.mask.any(1).all()
        assert scar.mask.sum() == pytest.approx((2 * scar.half).prod(), rel=0.15)
        angle = np.arctan2(scar.matrix[1, 0], scar.matrix[0, 0])
        assert abs(angle) <= np.pi / 4
        if abs(angle) > 0.3:
            assert not scar.mask[0, 0] and not scar.mask[-1, -1]
            assert not scar.mask[0, -1] and not scar.mask[-1, 0]
        assert (scar.mask == scar.mask[::-1, ::-1]).all()
        assert (scar.low == (1 - np.array(scar.mask.shape)) / 2).all()


@pytest.mark.parametrize("size", [(32, 48), (5, 60), (2, 2), (1, 9), (1, 1)])
def test_a_scar_larger_than_the_image_is_scaled_down(size):
    rng = np.random.RandomState(0)
    for _ in range(60):
        scar = RandomScar(width=(300, 900), length=(200, 2000))(rng, frame(*size))
        assert scar.mask.any()
        assert all(n <= whole for n, whole in zip(scar.mask.shape, size, strict=True))
        assert (2 * scar.half <= size).all()


# where the content comes from


def test_other_corners_are_uniform_and_leave_one_out():
    rng = np.random.RandomState(0)
    counts = Counter(tuple(other_corner(rng, np.array([2, 3]), np.array([1, 2])).tolist()) for _ in range(4400))
    assert len(counts) == 11
    assert (1, 2) not in counts
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    for outside in ([0.5, 2], [3, 2], [-1, 0]):
        drawn_from = {tuple(other_corner(rng, np.array([2, 3]), np.array(outside)).tolist()) for _ in range(400)}
        assert len(drawn_from) == 12


def test_there_may_be_no_other_corner():
    rng = np.random.RandomState(0)
    assert other_corner(rng, np.array([0, 0]), np.array([0, 0])) is None
    assert other_corner(rng, np.array([0, -1]), np.array([0, 0])) is None
    assert other_corner(rng, np.array([0, 0]), np.array([0.5, 0])).tolist() == [0, 0]


@pytest.mark.parametrize("size", [(30, 47), (12, 17, 14)])
def test_a_patch_is_a_part_of_the_same_image_elsewhere(size):
    image = unique_values(size, 2)
    transform = RandCutPaste(jitter=0).set_random_state(0)
    for _ in range(20):
        result = transform(image)
        params = drawn(result)
        expected = image.clone()
        expected[box_at(params["corner"], params["size"])] = image[box_at(params["source_corner"], params["size"])]
        assert torch.equal(result["image"], expected)
        assert params["corner"] != params["source_corner"]
        inside = torch.zeros(1, *size)
        inside[box_at(params["corner"], params["size"])] = 1
        assert torch.equal(result["label"], inside)
        assert result["target"] == 1


def test_a_pasted_patch_is_jittered_as_a_whole():
    image = smooth((40, 52), channels=3)
    result = RandCutPaste(jitter=0.1, clip=None).set_random_state(3)(image)
    params = drawn(result)
    crop = image[box_at(params["source_corner"], params["size"])][None]
    expected = jitter_color(crop, *(torch.tensor([params[name]]) for name in NAMES))[0]
    pasted = result["image"][box_at(params["corner"], params["size"])]
    torch.testing.assert_close(pasted, expected, atol=1e-6, rtol=0)
    assert float((pasted - crop[0]).abs().max()) > 0.01


def test_jitter_is_of_the_value_range():
    image = smooth((40, 52))
    plain = RandCutPaste().set_random_state(3)(image)
    scaled = RandCutPaste(value_range=(-1, 1)).set_random_state(3)(2 * image - 1)
    torch.testing.assert_close(scaled["image"], 2 * plain["image"] - 1, atol=1e-5, rtol=0)


def test_a_patch_never_lands_on_its_own_origin():
    """Two pixels and a patch of one: whatever is drawn, one pixel takes the value of the other."""
    image = torch.tensor([[[0.2, 0.9]]])
    transform = RandCutPaste(area=(0.5, 0.5), aspect=(1, 1), jitter=0).set_random_state(0)
    for _ in range(30):
        result = transform(image)
        assert result["target"] == 1
        assert float(result["label"].sum()) == 1
        assert result["image"].unique().numel() == 1


def test_a_scar_never_lands_on_its_own_origin():
    """An upright scar of three of the four pixels: from the first to the second place, or back."""
    image = unique_values((4, 1))
    transform = RandCutPasteScar(width=(4, 4), length=(3, 3), max_angle=0, reference_size=4, jitter=0)
    transform.set_random_state(0)
    for _ in range(30):
        result = transform(image)
        params = drawn(result)
        assert params["size"] == [3, 1]
        assert {params["corner"][0], params["source_corner"][0]} == {0, 1}
        assert result["target"] == 1


@pytest.mark.parametrize("transform", [RandCutPaste, RandCutPasteScar, RandCutPasteUnion])
def test_where_nothing_changes_there_is_no_label(transform):
    for image in (torch.zeros(1, 20, 30), torch.full((3, 1, 1), 0.4)):
        result = transform().set_random_state(0)(image)
        assert torch.equal(result["image"], image)
        assert result["target"] == 0
        assert not result["label"].any()


def test_label_marks_only_what_changed():
    """A patch with background pasted on background: no label there."""
    image = torch.zeros(1, 60, 60)
    image[:, 20:40, 20:40] = unique_values((20, 20)) + 0.1
    transform = RandCutPaste(jitter=0).set_random_state(0)
    for _ in range(10):
        result = transform(image)
        assert torch.equal(result["label"] == 1, (result["image"] != image).any(0, keepdim=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 5), (4, 3)])
@pytest.mark.parametrize("transform", [RandCutPaste, RandCutPasteScar])
def test_tiny_images_come_through(transform, size):
    image = unique_values(size) if np.prod(size) > 1 else torch.full((1, 1, 1), 0.5)
    instance = transform().set_random_state(0)
    for _ in range(10):
        result = instance(image)
        assert torch.isfinite(result["image"]).all()
        assert result["target"] == int(result["label"].any())


def test_integers_become_floats():
    image = (unique_values((30, 30)) * 255).to(torch.uint8)
    result = RandCutPaste(value_range=(0, 255)).set_random_state(0)(image.numpy())
    assert result["image"].dtype == torch.float32
    assert float(result["image"].max()) <= 255


def test_half_of_a_patch_lies_in_the_foreground():
    foreground = torch.zeros(1, 40, 60)
    foreground[:, 5:20, 30:55] = 1
    transform = RandCutPaste(area=(0.02, 0.05), jitter=0).set_random_state(0)
    for _ in range(20):
        label = transform(unique_values((40, 60)), foreground)["label"]
        assert float((label * foreground).sum()) >= 0.5 * float(label.sum()) > 0


# scars


def test_a_scar_holds_the_rotated_rectangle_of_its_source():
    """Oracle: SciPy's spline at the pixels of the canvas, turned back about the center of the rectangle."""
    image = smooth((120, 150), channels=2)
    transform = RandCutPasteScar(jitter=0, reference_size=100, clip=None).set_random_state(0)
    for _ in range(10):
        result = transform(image)
        params = drawn(result)
        corner, size = np.array(params["corner"]), np.array(params["size"])
        rectangle = np.array(params["upright"])
        middle = np.array(params["source_corner"]) + (rectangle - 1) / 2
        inverse = np.array(params["inverse"])
        expected = image.clone()
        pixels = np.array(list(np.ndindex(*size)))
        turned = np.array([inverse @ (pixel + params["low"]) for pixel in pixels])
        inside = (np.abs(turned) <= rectangle / 2).all(1)
        for channel, values in enumerate(image.numpy()):
            read = ndimage.map_coordinates(values, (middle + turned[inside]).T, order=3, mode="mirror")
            rows, columns = (corner + pixels[inside]).T
            expected[channel, rows, columns] = torch.from_numpy(np.clip(read, values.min(), values.max()))
        torch.testing.assert_close(result["image"], expected, atol=2e-4, rtol=0)
        assert torch.equal(result["support"][0], (result["image"] != image).any(0))


def test_the_corners_of_a_rotated_canvas_are_not_pasted():
    image = unique_values((200, 200))
    transform = RandCutPasteScar(width=(30, 30), length=(30, 30), max_angle=np.pi / 4, jitter=0.1)
    transform.set_random_state(0)
    shares = []
    for _ in range(20):
        result = transform(image)
        canvas = np.prod(drawn(result)["size"])
        shares.append(float(result["label"].sum()) / canvas)
        place = box_at(drawn(result)["corner"], drawn(result)["size"])
        assert torch.equal(result["image"][place][:, 0, 0], image[place][:, 0, 0]) or shares[-1] > 0.9
    assert 0.45 < min(shares) < 0.6  # at 45 degrees half the canvas
    assert max(shares) > 0.85


def test_scars_take_nothing_from_beyond_the_image():
    """A spline overshoots at an edge; values stay in the range of the image even without clipping."""
    image = (unique_values((40, 40)) > 0.5).float()
    transform = RandCutPasteScar(jitter=0, clip=None, reference_size=40, width=(2, 10)).set_random_state(0)
    for _ in range(10):
        result = transform(image)["image"]
        assert float(result.min()) >= 0
        assert float(result.max()) <= 1


@pytest.mark.parametrize("transform", [RandCutPasteScar(), RandCutPasteUnion(), RandCutPaste3Way()])
def test_scars_are_defined_for_2d_only(transform):
    with pytest.raises(ValueError, match="defined for 2D images"):
        transform(torch.rand(1, 8, 8, 8))


# batches


@pytest.mark.parametrize(
    ("maker", "size"),
    [
        (RandCutPaste, (40, 52)),
        (RandCutPaste, (14, 18, 16)),
        (RandCutPasteScar, (64, 80)),
        (RandCutPasteUnion, (48, 40)),
    ],
)
def test_a_batch_is_its_images_one_by_one(maker, size):
    """Patches of different sizes are padded to one; contrast and splines must not see the padding."""
    images = torch.stack([smooth(size, seed, 3) for seed in range(5)])
    batch = BatchAnomaly(maker()).set_random_state(1)(images)
    single = maker().set_random_state(1)
    for row, image in enumerate(images):
        one = single(image)
        torch.testing.assert_close(batch["image"][row], one["image"], atol=1e-5, rtol=0)
        assert torch.equal(batch["label"][row], one["label"])
        assert batch["params"][row] == one["params"]
    assert batch["target"].tolist() == [1] * 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandCutPaste(area=(0.5, 1.5)), "area must be two ascending"),
        (lambda: RandCutPaste(aspect=(2, 3)), "at most and at least 1"),
        (lambda: RandCutPaste(aspect=(0, 3)), "aspect must be above 0"),
        (lambda: RandCutPaste(distribution="normal"), "distribution must be one of"),
        (lambda: RandCutPaste(jitter=0.7), r"strength must be in \[0, 0.5\]"),
        (lambda: RandCutPasteScar(width=(3, 2)), "width must be two ascending"),
        (lambda: RandCutPasteScar(length=(-1, 2)), "length must be two ascending"),
        (lambda: RandCutPasteScar(max_angle=-1), "max_angle must be 0 or more"),
        (lambda: RandCutPasteScar(reference_size=0), "reference_size must be above 0"),
        (lambda: RandCutPasteUnion(p_clean=2), "p_clean must be in"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
