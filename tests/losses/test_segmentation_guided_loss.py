# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monai_anomaly.losses import SegmentationGuidedLoss
from monai_anomaly.networks.blocks import DenoisingOutput


def maps() -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(0)
    sizes = [(2, 3, 3, 4), (2, 2, 2, 2)]
    made, wanted = ([torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes] for _ in range(2))
    return [each.requires_grad_() for each in made], wanted


@pytest.mark.parametrize(("compat", "images"), [(None, 2), ("destseg", 1)])
def test_loss_of_the_student_is_the_formula(compat: str | None, images: int) -> None:
    made, wanted = maps()
    expected = torch.zeros((), dtype=torch.float64)
    for n in range(2):
        for a, b in zip(made, wanted, strict=True):
            height, width = a.shape[2:]
            for y in range(height):
                for x in range(width):
                    u, v = a[n, :, y, x], b[n, :, y, x]
                    expected = expected + (1 - u @ v / (u @ u).sqrt() / (v @ v).sqrt()) / (height * width)
    expected = expected / images  # the published code adds the images of a batch up
    value = SegmentationGuidedLoss(compat=compat)(DenoisingOutput(made, wanted), torch.ones(2, 1, 8, 8))
    torch.testing.assert_close(value, expected)
    for gradient, other in zip(torch.autograd.grad(value, made), torch.autograd.grad(expected, made), strict=True):
        torch.testing.assert_close(gradient, other)


def mask_by_hand(mask: Tensor, compat: str | None) -> Tensor:
    """Of places of 4 x 4 pixels: the mean of all of them, or of the four in the middle, cut at one half."""
    places = torch.zeros(len(mask), 1, mask.shape[2] // 4, mask.shape[3] // 4, dtype=mask.dtype)
    for n, _, y, x in torch.cartesian_prod(*map(torch.arange, places.shape)).tolist():
        pixels = mask[n, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        seen = pixels if compat is None else pixels[1:3, 1:3]
        places[n, 0, y, x] = float(seen.mean() >= 0.5)
    return places


@pytest.mark.parametrize("compat", [None, "destseg"])
@pytest.mark.parametrize("gamma", [4.0, 1.5, 0.0])
def test_loss_of_the_head_is_the_formula(compat: str | None, gamma: float) -> None:
    draw = torch.Generator().manual_seed(1)
    logits = (2 * torch.randn(2, 1, 3, 5, generator=draw, dtype=torch.float64)).requires_grad_()
    mask = (torch.rand(2, 1, 12, 20, generator=draw) < 0.5).double()
    places = mask_by_hand(mask, compat)
    assert not torch.equal(places, mask_by_hand(mask, "destseg" if compat is None else None))
    expected = torch.zeros((), dtype=torch.float64)
    for z, m in zip(logits.flatten(), places.flatten(), strict=True):
        q = 1 / (1 + (-z).exp())
        p = q if m == 1 else 1 - q
        expected = expected + (-((1 - p) ** gamma) * p.log() + (m - q).abs()) / logits.numel()
    value = SegmentationGuidedLoss(gamma, compat)(DenoisingOutput([], [], logits, torch.tensor(True)), mask)
    torch.testing.assert_close(value, expected)
    (gradient,), (other,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, other)


def test_at_half_a_probability_the_focal_term_is_a_sixteenth_of_log_2() -> None:
    output = DenoisingOutput([], [], torch.zeros(1, 1, 2, 2), torch.tensor(True))
    value = SegmentationGuidedLoss()(output, torch.zeros(1, 1, 4, 4))
    assert float(value) == pytest.approx(math.log(2) / 16 + 0.5)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gamma must be 0 or more, got -1\."):
        SegmentationGuidedLoss(-1.0)
    with pytest.raises(ValueError, match="compat must be None or 'destseg', got 'upd'"):
        SegmentationGuidedLoss(compat="upd")
    assert "gamma=2.0, compat=destseg" in repr(SegmentationGuidedLoss(2.0, "destseg"))
