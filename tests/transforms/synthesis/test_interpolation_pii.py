# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What PII does otherwise than FPI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pictures import boxes_of, drawn, pictures

from monai_anomaly.transforms.synthesis.interpolation import RandPII

SIZES = pytest.mark.parametrize("size", [(40, 40), (36, 50), (24, 20, 28)])


def poisson_by_equations(own: np.ndarray, foreign: np.ndarray, alpha: float) -> np.ndarray:
    """Solve a box voxel by voxel: the sum of the differences to all neighbors is that of the stronger ones."""
    inner = [p for p in np.ndindex(*own.shape) if all(0 < a < n - 1 for a, n in zip(p, own.shape, strict=True))]
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
    result[tuple(np.transpose(inner))] = np.linalg.solve(matrix, right)
    return result


@SIZES
def test_pii_solves_its_equations_and_labels_what_changed(size: tuple[int, ...]) -> None:
    own, foreign = pictures(2, *size)
    sample = RandPII([foreign], clip=None, half_width=(0.1, 0.15)).set_random_state(3)(own)
    box, alpha = drawn(sample)
    wanted = own.numpy().astype(float)
    for channel, other in zip(wanted, foreign.numpy().astype(float), strict=True):
        channel[box] = poisson_by_equations(channel[box], other[box], alpha)
    change = np.abs(wanted - own.numpy()).mean(0, keepdims=True)
    clear = np.abs(change - 1e-3) > 1e-5  # rounding decides the rest
    label, image = sample["label"].numpy(), sample["image"].numpy()
    np.testing.assert_allclose(label[clear], np.where(change > 1e-3, alpha, 0)[clear], atol=1e-6)
    np.testing.assert_allclose(image, np.where(label > 0, wanted, own.numpy()), atol=1e-5)
    border = np.ones([part.stop - part.start for part in box], dtype=bool)
    border[(slice(1, -1),) * len(size)] = False
    assert not label[(0, *box)][border].any()
    assert label.max() == np.float32(alpha)


def test_pii_takes_extreme_weights() -> None:
    own, foreign = pictures(1, 32, 32)
    nothing, all_of_it = (
        RandPII([foreign], alpha=(alpha, alpha), clip=None).set_random_state(0)(own) for alpha in (0.0, 1.0)
    )
    assert torch.equal(nothing["image"], own) and nothing["target"] == 0
    box, _ = drawn(all_of_it)
    wanted = poisson_by_equations(own[0].numpy()[box], foreign[0].numpy()[box], 1.0)
    inside = all_of_it["support"][0][box]
    np.testing.assert_allclose(all_of_it["image"][0][box][inside], wanted[inside.numpy()], atol=1e-5)
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


def test_pii_upd_compares_the_two_images_instead_of_what_the_blend_changed() -> None:
    noise = 1e-4 * torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    own, foreign = 0.5 + noise[0], 0.8 + noise[1]
    default, upd = (
        RandPII([foreign], compat=compat, half_width=(0.1, 0.1)).set_random_state(0)(own) for compat in (None, "upd")
    )
    assert default["target"] == 0
    assert upd["target"] == 1 and float((upd["image"] - own).abs().max()) < 1e-3
    assert 20 < upd["support"].sum() <= 6 * 6  # within the border of the box of 8 x 8, but for what rounding hides
    own, foreign = pictures(1, 40, 40)
    foreign[..., 20:] = own[..., 20:]
    default, upd = (
        RandPII([foreign], compat=compat, core=0.1, half_width=(0.2, 0.2)).set_random_state(0)(own)
        for compat in (None, "upd")
    )
    assert default["label"][..., 20:].any() and not upd["label"][..., 20:].any()


def test_pii_upd_draws_the_whole_width_from_the_last_axis() -> None:
    _, size = boxes_of(RandPII(compat="upd", core=0.1), torch.zeros(1, 200, 50))
    assert (size[:, 0] == size[:, 1]).all()
    assert set(size[:, 0]) == set(range(5, 20))


def test_only_fpi_has_classes() -> None:
    with pytest.raises(ValueError, match=r"label must be one of \('factor', 'binary'\), got 'classes'"):
        RandPII(label="classes")
