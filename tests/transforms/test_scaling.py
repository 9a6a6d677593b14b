# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_anomaly.transforms import ScaleSourceRange, ScaleSourceRanged


def test_scales_the_range_of_the_source_not_of_the_content() -> None:
    image = MetaTensor(torch.tensor([[[51.0, 102.0], [153.0, 204.0]]]), meta={"source_range": (0.0, 255.0), "a": 1})
    result = ScaleSourceRange()(image)
    assert isinstance(result, MetaTensor) and result.meta["a"] == 1
    assert torch.allclose(result.as_tensor(), torch.tensor([[[-0.6, -0.2], [0.2, 0.6]]]), atol=1e-6)


def test_formula_for_any_range_in_2d_and_3d() -> None:
    for shape in ((2, 4, 5), (1, 3, 4, 5)):
        values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 30 - 7
        image = MetaTensor(values, meta={"source_range": (-7.0, 23.0)})
        result = ScaleSourceRange(2.0, 5.0)(image).numpy()
        for x, y in zip(values.flatten().tolist(), result.ravel().tolist(), strict=True):
            assert y == pytest.approx((x + 7) / 30 * 3 + 2, abs=1e-5)


def test_fixed_range_clips() -> None:
    image = MetaTensor(torch.tensor([[[-2000.0, -1000.0, -300.0, 400.0, 3000.0]]]), meta={"source_range": (0.0, 255.0)})
    result = ScaleSourceRange(source_range=(-1000, 400))(image)
    assert torch.allclose(result.as_tensor(), torch.tensor([[[-1.0, -1.0, 0.0, 1.0, 1.0]]]))


def test_constant_image_and_ends_are_exact() -> None:
    constant = MetaTensor(torch.full((1, 3, 3), 5.0), meta={"source_range": (5.0, 5.0)})
    assert torch.equal(ScaleSourceRange()(constant).as_tensor(), torch.full((1, 3, 3), -1.0))
    ends = MetaTensor(torch.tensor([[[0.0, 255.0]]]), meta={"source_range": (0.0, 255.0)})
    assert ScaleSourceRange()(ends).flatten().tolist() == [-1.0, 1.0]


def test_images_of_other_loaders() -> None:
    assert ScaleSourceRange()(np.array([[[51, 102]]], dtype=np.uint8)).flatten().tolist() == pytest.approx([-0.6, -0.2])
    assert ScaleSourceRange()(torch.tensor([[[2.0, 3.0, 4.0]]])).flatten().tolist() == pytest.approx([-1, 0, 1])


def test_dictionary_version() -> None:
    data = {"image": torch.tensor([[[0.0, 1.0]]]), "label": "kept"}
    result = ScaleSourceRanged("image", 0.0, 2.0, (0, 4))(data)
    assert result["image"].flatten().tolist() == [0.0, 0.5] and result["label"] == "kept"
    assert data["image"].flatten().tolist() == [0.0, 1.0]
    with pytest.raises(KeyError):
        ScaleSourceRanged("none")(data)
    assert ScaleSourceRanged("none", allow_missing_keys=True)(data).keys() == data.keys()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="minv must be below maxv, got minv=1"):
        ScaleSourceRange(1, 1)
    for bad in ((3, 3), (5, 1), (1, 2, 3)):
        with pytest.raises(ValueError, match="two ascending numbers"):
            ScaleSourceRanged("image", source_range=bad)


def test_undo_is_the_inverse_for_what_belongs_to_the_image() -> None:
    values = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) * 30 - 7
    image = MetaTensor(values, meta={"source_range": (-7.0, 23.0)})
    for scaler in (ScaleSourceRange(), ScaleSourceRange(2.0, 5.0), ScaleSourceRange(source_range=(-10, 25))):
        scaled = scaler(image)
        assert torch.allclose(scaler.undo(scaled.as_tensor(), scaled), values, atol=1e-4)
    assert ScaleSourceRange().undo(torch.tensor([-1.0, 0.0, 1.0, 2.0]), image).tolist() == [-7.0, 8.0, 23.0, 38.0]
    with pytest.raises(ValueError, match="does not say the range of its file"):
        ScaleSourceRange().undo(values, values)
