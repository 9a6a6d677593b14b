# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from monai_anomaly.transforms import ResizeImaged


def image(*size: int) -> torch.Tensor:
    return torch.rand(2, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 6)])
def test_an_image_that_shrinks_is_averaged_over_areas(size: tuple[int, ...]) -> None:
    given = image(*size)
    half = [cells // 2 for cells in size]
    blocks = given.unfold(1, 2, 2).unfold(2, 2, 2)
    blocks = blocks.unfold(3, 2, 2) if len(size) == 3 else blocks
    expected = blocks.flatten(len(size) + 1).mean(-1)
    torch.testing.assert_close(ResizeImaged("image", half)({"image": given})["image"], expected)


def linear(values: torch.Tensor, count: int) -> torch.Tensor:
    """Values at the centers of ``count`` cells, from those at the centers of the cells given, along the last axis."""
    cells = values.shape[-1]
    place = ((torch.arange(count) + 0.5) * cells / count - 0.5).clamp(0, cells - 1)
    low = place.floor().long()
    share = place - low
    return values[..., low] * (1 - share) + values[..., (low + 1).clamp_max(cells - 1)] * share


@pytest.mark.parametrize("size", [(5, 7), (5, 7, 3)])
def test_an_image_that_grows_is_interpolated_linearly(size: tuple[int, ...]) -> None:
    given = expected = image(*size)
    wanted = [2 * cells + 1 for cells in size]
    for axis, count in enumerate(wanted, start=1):
        expected = linear(expected.movedim(axis, -1), count).movedim(-1, axis)
    torch.testing.assert_close(ResizeImaged("image", wanted)({"image": given})["image"], expected)


def test_an_axis_that_shrinks_beside_one_that_grows_is_smoothed_first() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 4, 32)
    resized = ResizeImaged("image", (8, 8))({"image": stripes})["image"]
    assert resized.shape == (1, 8, 8)
    assert (resized[..., 1:-1] - 0.5).abs().max() < 0.05  # without the filter, every fourth column: 0 or 1 throughout
    assert not torch.allclose(F.interpolate(stripes[None], (8, 8), mode="nearest")[0], resized, atol=0.4)


def test_an_axis_may_be_left_and_an_image_that_fits_is_as_it_was() -> None:
    given = image(6, 4)
    assert torch.equal(ResizeImaged("image", (6, 4))({"image": given})["image"], given)
    assert ResizeImaged("image", (3, -1))({"image": given})["image"].shape == (2, 3, 4)


def test_inverse_gives_the_size_back() -> None:
    resize = ResizeImaged("image", (16, 16))
    resized = resize({"image": MetaTensor(image(6, 4))})
    assert resize.inverse(resized)["image"].shape == (2, 6, 4)
