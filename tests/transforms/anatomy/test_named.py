# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_anomaly.transforms import AboveMinimum, LungMask, NamedMaskd, WholeImage


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 3, 2)])
def test_whole_image_is_true_everywhere(shape: tuple[int, ...]) -> None:
    mask = WholeImage()(torch.zeros(shape))
    assert mask.shape == (1, *shape[1:]) and mask.dtype == torch.bool and mask.all()


@pytest.mark.parametrize(
    ("name", "part"), [("lungs", LungMask()), ("above_minimum", AboveMinimum()), ("whole_image", WholeImage())]
)
def test_names_are_those_of_the_methods(name: str, part: object) -> None:
    y, x = np.mgrid[:48, :48] / 48
    lungs = sum(np.exp(-(((x - c) / 0.13) ** 2) - ((y - 0.5) / 0.25) ** 2) for c in (0.28, 0.72))
    image = torch.from_numpy(0.9 - 0.7 * lungs).float()[None]
    image[0, :4] = 0
    data = {"image": image, "other": image + 1}
    result = NamedMaskd(name=name)(data)
    assert torch.equal(torch.as_tensor(result["foreground"]), torch.as_tensor(part(image)))  # type: ignore[operator]
    assert torch.equal(result["image"], image)
    other = NamedMaskd("other", name, "place")(data)
    assert set(other) == {"image", "other", "place"} and other["place"].shape == (1, 48, 48)


def test_the_default_is_that_of_radiographs() -> None:
    assert isinstance(NamedMaskd().transform, LungMask)


def test_arguments_go_to_the_method() -> None:
    image = torch.ones(1, 5, 5)
    image[0, 2, 2] = 0
    filled, open_ = (
        NamedMaskd("image", "above_minimum", fill_holes=fill)({"image": image})["foreground"] for fill in (True, False)
    )
    assert filled.all() and not open_[0, 2, 2] and int(open_.sum()) == 24


def test_samples_without_the_image_pass_on_demand() -> None:
    assert NamedMaskd("image", "above_minimum", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError):
        NamedMaskd("image", "above_minimum")({"other": 1})


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'lungs', 'above_minimum', 'whole_image'.*got 'brain'"):
        NamedMaskd(name="brain")
