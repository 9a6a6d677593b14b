# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_anomaly.transforms.anatomy import (
    AboveMinimum,
    AboveMinimumd,
    AnatomyMaskd,
    DifferentFromBackground,
    DifferentFromBackgroundd,
)


def slow_majority(mask: np.ndarray, width: int) -> np.ndarray:
    """Median of each voxel's neighborhood, the border repeated, voxel by voxel."""
    reach = width // 2
    result = np.zeros_like(mask)
    for place in np.ndindex(mask.shape):
        around = product(range(-reach, reach + 1), repeat=mask.ndim)
        values = [
            mask[tuple(min(max(p + o, 0), n - 1) for p, o, n in zip(place, offset, mask.shape, strict=True))]
            for offset in around
        ]
        result[place] = np.median(values) > 0
    return result


@pytest.mark.parametrize("shape", [(6, 9), (5, 6, 7)])
def test_above_minimum_is_true_where_any_channel_is_above_its_own(shape: tuple[int, ...]) -> None:
    image = torch.zeros(2, *shape)
    image[0], image[1] = -1.0, 0.5
    expected = torch.zeros(1, *shape, dtype=torch.bool)
    image[0, 1, 2], image[1, 3, 4] = -0.9, 0.6
    expected[0, 1, 2] = expected[0, 3, 4] = True
    mask = AboveMinimum()(image)
    assert mask.dtype == torch.bool and torch.equal(mask, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_holes_are_filled_on_request(dims: int) -> None:
    image = torch.zeros(1, *[7] * dims)
    image[(0, *[slice(1, 6)] * dims)] = 1
    image[(0, *[3] * dims)] = 0
    hole = AboveMinimum(fill_holes=True)(image) & ~AboveMinimum()(image)
    assert hole.sum() == 1 and bool(hole[(0, *[3] * dims)])


def test_constant_image_has_no_foreground() -> None:
    assert not AboveMinimum()(torch.full((1, 4, 4), 3.0)).any()


@pytest.mark.parametrize(("shape", "width"), [((9, 12), 7), ((6, 7, 5), 3), ((8, 8), 1)])
def test_difference_from_the_background_and_its_median(shape: tuple[int, ...], width: int) -> None:
    image = np.random.RandomState(0).randint(0, 256, (3, *shape))
    inside = abs(image - 120.0).mean(0) > 60
    assert 0.2 < inside.mean() < 0.8
    mask = DifferentFromBackground(120, 60, width)(torch.from_numpy(image))
    assert torch.equal(mask[0], torch.from_numpy(slow_majority(inside, width)))


def test_units_are_those_of_the_image() -> None:
    image = torch.randint(0, 256, (1, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(DifferentFromBackground(0, 20)(image), DifferentFromBackground(0, 20 / 255)(image / 255))


def test_meta_data_and_device_stay() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    mask = AboveMinimum()(MetaTensor(torch.rand(1, 4, 5), affine=affine))
    assert isinstance(mask, MetaTensor) and torch.equal(mask.affine, affine) and mask.dtype == torch.bool
    assert not isinstance(AboveMinimum()(np.random.rand(1, 4, 5)), MetaTensor)


def test_dictionary_versions_write_beside_the_image() -> None:
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    sample = AboveMinimumd(fill_holes=True)({"image": image})
    assert torch.equal(sample["foreground"], AboveMinimum(True)(image)) and sample["image"] is image
    sample = DifferentFromBackgroundd("scan", mask_key="body", brightness=0, tolerance=0.5)({"scan": image})
    assert torch.equal(sample["body"], DifferentFromBackground(0, 0.5)(image))
    sample = AnatomyMaskd(finder=AboveMinimum())({"image": image})
    assert torch.equal(sample["foreground"], AboveMinimum()(image))
    assert AboveMinimumd(allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_errors_say_what_and_where() -> None:
    broken = torch.ones(1, 4, 4)
    broken[0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match=r'key "scan": image a.png holds NaN'):
        AboveMinimumd("scan")({"scan": MetaTensor(broken, meta={"filename_or_obj": "a.png"})})
    with pytest.raises(ValueError, match=r"AboveMinimum is defined for 2D or 3D images \(C, \*S\), got one of shape"):
        AboveMinimum()(torch.ones(4, 4))
    with pytest.raises(ValueError, match="tolerance must be 0 or more, got -1"):
        DifferentFromBackground(0, -1)
    with pytest.raises(ValueError, match="median must be an odd number of voxels, got 4"):
        DifferentFromBackground(0, 1, 4)
    with pytest.raises(ValueError, match="keys must name one image"):
        AboveMinimumd(["a", "b"])
    with pytest.raises(ValueError, match="give finder="):
        AnatomyMaskd()
    with pytest.raises(ValueError, match="give finder="):
        AboveMinimumd(finder=AboveMinimum())
    with pytest.raises(ValueError, match=r"takes no more arguments, got \['fill_holes'\]"):
        AnatomyMaskd(finder=AboveMinimum(), fill_holes=True)
