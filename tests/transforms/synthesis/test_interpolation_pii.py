# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What PII does otherwise than FPI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pictures import boxes_of, drawn, pictures

from monai_anomaly.transforms.synthesis.anomaly import RandAnomaly
from monai_anomaly.transforms.synthesis.corruptors import PoissonBlend
from monai_anomaly.transforms.synthesis.interpolation import RandPII
from monai_anomaly.transforms.synthesis.placements import CenterPlacement
from monai_anomaly.transforms.synthesis.shapes import RandomBox

SIZES = pytest.mark.parametrize("size", [(40, 40), (36, 50), (24, 20, 28)])


def poisson_by_equations(
    own: np.ndarray, foreign: np.ndarray, box: tuple[slice, ...], alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Solve voxel by voxel what the box covers of the inside of two images, and say which voxels those are.

    The sum of the differences of a voxel to all its neighbors is that of the stronger ones.
    """
    free = np.zeros(own.shape, dtype=bool)
    free[box] = True
    free &= np.pad(np.ones([n - 2 for n in own.shape], dtype=bool), 1)
    inner = list(map(tuple, np.argwhere(free).tolist()))
    number = {place: row for row, place in enumerate(inner)}
    matrix, right = np.zeros((len(inner), len(inner))), np.zeros(len(inner))
    for place, row in number.items():
        for axis in range(own.ndim):
            for step in (-1, 1):
                other = (*place[:axis], place[axis] + step, *place[axis + 1 :])
                a, b = (1 - alpha) * (own[place] - own[other]), alpha * (foreign[place] - foreign[other])
                right[row] += a if abs(a) > abs(b) else b
                matrix[row, row] += 1
                if other in number:
                    matrix[row, number[other]] -= 1
                else:
                    right[row] += own[other]
    result = own.copy()
    result[free] = np.linalg.solve(matrix, right)
    return result, free


@SIZES
def test_pii_solves_its_equations_and_labels_what_changed(size: tuple[int, ...]) -> None:
    own, foreign = pictures(2, *size)
    sample = RandPII([foreign], clip=None, half_width=(0.1, 0.15)).set_random_state(3)(own)
    box, alpha = drawn(sample)
    pairs = zip(own.numpy().astype(float), foreign.numpy().astype(float), strict=True)
    solved = [poisson_by_equations(mine, other, box, alpha) for mine, other in pairs]
    wanted, free = np.stack([values for values, _ in solved]), solved[0][1]
    change = np.abs(wanted - own.numpy()).mean(0, keepdims=True)
    clear = np.abs(change - 1e-3) > 1e-5  # rounding decides the rest
    label, image = sample["label"].numpy(), sample["image"].numpy()
    np.testing.assert_allclose(label[clear], np.where(change > 1e-3, alpha, 0)[clear], atol=1e-6)
    np.testing.assert_allclose(image, np.where(label > 0, wanted, own.numpy()), atol=1e-5)
    assert not label[0][~free].any()
    assert label.max() == np.float32(alpha)


@pytest.mark.parametrize("compat", [None, "published", "upd"])
@pytest.mark.parametrize("dims", [2, 3])
def test_all_of_a_patch_changes_but_for_the_border_of_the_image(dims: int, compat: str | None) -> None:
    size, settings = (30,) * dims, {"compat": compat, "half_width": (0.2, 0.2), "clip": None, "tolerance": 1e-6}
    own, foreign = pictures(1, *size)
    sample = RandPII([foreign], core=0.1, **settings).set_random_state(0)(own)
    box, _ = drawn(sample)
    assert [part.stop - part.start for part in box] == [12] * dims
    changed = (sample["image"] != own)[0]
    assert changed[box].all() and int(changed.sum()) == 12**dims  # 144 of 144 in 2D
    assert int(sample["support"].sum()) > 0.95 * 12**dims  # but for what a comparison by floor hides
    touching = RandPII([foreign], core=1.0, **settings)
    for seed in range(40):
        sample = touching.set_random_state(seed)(own)
        if drawn(sample)[0][0].start == 0:
            break
    box, _ = drawn(sample)
    assert box[0].start == 0
    for key in ("label", "support"):
        assert not sample[key][0, 0].any()
    assert torch.equal(sample["image"][0, 0], own[0, 0]) and sample["support"][0, 1].any()


@pytest.mark.parametrize("border", ["box", "image"])
def test_a_blend_may_hold_the_border_of_its_box_or_only_that_of_the_image(border: str) -> None:
    own, foreign = pictures(1, 30, 30)
    blend = PoissonBlend("source", border=border)
    method = RandAnomaly(RandomBox((0.2, 0.2)), CenterPlacement(0.2), blend, source=[foreign], clip=None, tolerance=0)
    sample = method.set_random_state(0)(own)
    _, size = boxes_of(method.set_random_state(0), own, 1)
    assert (size == 12).all()
    assert int((sample["image"] != own).sum()) == (100 if border == "box" else 144)


def test_pii_takes_extreme_weights() -> None:
    own, foreign = pictures(1, 32, 32)
    nothing, all_of_it = (
        RandPII([foreign], alpha=(alpha, alpha), clip=None).set_random_state(0)(own) for alpha in (0.0, 1.0)
    )
    assert torch.equal(nothing["image"], own) and nothing["target"] == 0
    box, _ = drawn(all_of_it)
    wanted, _ = poisson_by_equations(own[0].numpy(), foreign[0].numpy(), box, 1.0)
    inside = all_of_it["support"][0]
    np.testing.assert_allclose(all_of_it["image"][0][inside], wanted[inside.numpy()], atol=1e-5)
    assert set(all_of_it["label"].unique().tolist()) == {0.0, 1.0}


def test_pii_blends_each_channel_by_itself() -> None:
    own, foreign = pictures(3, 30, 44)
    method = RandPII(tolerance=0.0)
    plan = method.plan(np.random.RandomState(0), own, None, [foreign])
    together = method.apply(own[None], [plan])["image"][0]
    for channel in range(3):
        plan = method.plan(np.random.RandomState(0), own[channel : channel + 1], None, [foreign[channel : channel + 1]])
        alone = method.apply(own[None, channel : channel + 1], [plan])["image"][0, 0]
        torch.testing.assert_close(together[channel], alone, atol=1e-6, rtol=0)


def test_pii_clips_to_the_range_of_the_image_not_to_that_of_the_batch() -> None:
    dark, bright = pictures(1, 32, 32)
    dark = dark * 0.2 + 0.4
    method = RandPII(alpha=(0.9, 0.9))
    rng = np.random.RandomState(0)
    plans = [method.plan(rng, dark, None, [bright]), method.plan(rng, bright, None, [dark])]
    together = method.apply(torch.stack([dark, bright]), plans)["image"]
    torch.testing.assert_close(together[0], method.apply(dark[None], plans[:1])["image"][0], atol=1e-6, rtol=0)
    assert together[0].min() >= dark.min() and together[0].max() <= dark.max()
    free = RandPII(alpha=(0.9, 0.9), clip=None).apply(dark[None], plans[:1])["image"]
    assert free.max() > dark.max() or free.min() < dark.min()


def test_pii_published_compares_before_and_after_rounded_down() -> None:
    own, foreign = pictures(3, 40, 40)
    settings: dict[str, Any] = {"clip": None, "tolerance": 0.05}
    default, published = (
        RandPII([foreign], compat=compat, **settings).set_random_state(4)(own) for compat in (None, "published")
    )
    blended = RandPII([foreign], clip=None, tolerance=0.0).set_random_state(4)(own)["image"]
    change = (blended - own).abs().mean(0, keepdim=True)
    rounded = (torch.floor(blended / 0.05) != torch.floor(own / 0.05)).any(0, keepdim=True)
    assert torch.equal(default["support"], change > 0.05)
    assert torch.equal(published["support"], rounded)
    assert (rounded & (change < 0.05)).any()  # nearly equal, on two sides of a multiple
    alpha = drawn(published)[1]
    torch.testing.assert_close(published["label"], alpha * rounded)
    torch.testing.assert_close(published["image"], blended)  # what gets no label stays blended all the same
    assert torch.equal(default["image"], torch.where(change > 0.05, blended, own))


def test_pii_upd_compares_the_two_images_instead_of_what_the_blend_changed() -> None:
    noise = 1e-4 * torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    own, foreign = 0.5 + noise[0], 0.8 + noise[1]
    default, upd = (
        RandPII([foreign], compat=compat, core=0.5, half_width=(0.1, 0.1)).set_random_state(0)(own)
        for compat in (None, "upd")
    )
    assert default["target"] == 0
    assert upd["target"] == 1 and float((upd["image"] - own).abs().max()) < 1e-3
    assert upd["support"].sum() == 8 * 8
    own, foreign = pictures(1, 40, 40)
    foreign[..., 20:] = own[..., 20:]
    default, upd = (
        RandPII([foreign], compat=compat, core=0.1, half_width=(0.2, 0.2)).set_random_state(0)(own)
        for compat in (None, "upd")
    )
    assert default["label"][..., 20:].any() and not upd["label"][..., 20:].any()
    blended = RandPII([foreign], tolerance=0.0, core=0.1, half_width=(0.2, 0.2), compat="upd").set_random_state(0)(own)
    assert torch.equal(upd["image"], blended["image"]) and (upd["image"] != own)[..., 20:].any()


def test_pii_upd_draws_the_whole_width_from_the_last_axis() -> None:
    _, size = boxes_of(RandPII(compat="upd", core=0.1), torch.zeros(1, 200, 50))
    assert (size[:, 0] == size[:, 1]).all()
    assert set(size[:, 0]) == set(range(5, 20))


def test_only_fpi_has_classes() -> None:
    with pytest.raises(ValueError, match=r"label must be one of \('factor', 'binary'\), got 'classes'"):
        RandPII(label="classes")
