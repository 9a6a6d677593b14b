# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from monai_anomaly.functional import patchify, unpatchify


def slow_patchify(image: Tensor, patch_size: tuple[int, ...]) -> Tensor:
    """Patch by patch, value by value, in the order of the definition."""
    grids = [range(size // patch) for size, patch in zip(image.shape[2:], patch_size, strict=True)]
    rows = []
    for picture in image:
        patches = []
        for place in itertools.product(*grids):
            values = []
            for inside in itertools.product(*map(range, patch_size)):
                pixel = tuple(g * p + i for g, p, i in zip(place, patch_size, inside, strict=True))
                values += [picture[(channel, *pixel)] for channel in range(len(picture))]
            patches.append(torch.stack(values))
        rows.append(torch.stack(patches))
    return torch.stack(rows)


CASES = [((2, 3, 8, 8), (4, 4)), ((1, 1, 4, 6), (2, 3)), ((2, 2, 4, 2, 6), (2, 2, 3))]


@pytest.mark.parametrize(("shape", "patch_size"), CASES)
def test_patches_are_those_of_the_definition(shape: tuple[int, ...], patch_size: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patchify(image, patch_size), slow_patchify(image, patch_size))


@pytest.mark.parametrize(("shape", "patch_size"), CASES)
def test_putting_together_undoes_the_cut(shape: tuple[int, ...], patch_size: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    grid = [size // patch for size, patch in zip(shape[2:], patch_size, strict=True)]
    assert torch.equal(unpatchify(patchify(image, patch_size), patch_size, grid, shape[1]), image)


def test_values_of_a_patch_are_ordered_row_column_channel() -> None:
    image = torch.arange(8.0).reshape(1, 2, 2, 2)  # channel 0: 0 1 / 2 3, channel 1: 4 5 / 6 7
    assert patchify(image, (2, 2)).tolist() == [[[0, 4, 1, 5, 2, 6, 3, 7]]]


def test_a_gradient_goes_back_to_its_own_pixel() -> None:
    image = torch.zeros(1, 1, 4, 4, requires_grad=True)
    patchify(image, (2, 2))[0, 3, 1].backward()  # last patch, its upper right pixel
    assert image.grad is not None and image.grad[0, 0].nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize(("shape", "patch_size"), [((1, 1, 9, 8), (4, 4)), ((1, 1, 8, 8, 8), (4, 4))])
def test_images_that_do_not_divide_are_refused(shape: tuple[int, ...], patch_size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be divisible by the patch size"):
        patchify(torch.zeros(shape), patch_size)


@pytest.mark.parametrize("shape", [(1, 4, 8), (1, 3, 4), (4, 4)])
def test_patches_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(B, 4, 4\)"):
        unpatchify(torch.zeros(shape), (2, 2), (2, 2), 1)
