# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_anomaly.transforms import LoadImageChecked, PrepareImage, PrepareImaged, resize_to_source

NAN = float("nan")


def values(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "dims", "channels", "said", "axes"),
    [
        ((5, 6), 2, 1, None, "no channel"),
        ((5, 6), 2, 1, NAN, "no channel"),
        ((5, 6, 7), 3, 1, "no_channel", "no channel"),
        ((5, 6, 1), 2, 1, "no_channel", "one slice"),
        ((5, 6, 1), 2, 1, None, "last"),
        ((5, 6, 3), 2, 3, "no_channel", "last"),  # MONAI Deploy says so of every array of three axes
        ((5, 6, 3), 2, 3, -1, "last"),
        ((5, 6, 3), 2, 3, None, "last"),
        ((3, 6, 7), 2, 3, None, "first"),
        ((1, 6, 7), 2, 1, 0, "first"),
        ((1, 4, 6, 7), 3, 1, None, "first"),
        ((4, 6, 7, 2), 3, 2, -1, "last"),
    ],
)
def test_channels_come_first(shape: tuple[int, ...], dims: int, channels: int, said: Any, axes: str) -> None:
    given = values(*shape)
    found = PrepareImage(dims, channels)(MetaTensor(given, meta={} if said is None else {"original_channel_dim": said}))
    expected = {"no channel": given[None], "one slice": given[None, ..., 0], "first": given}
    assert torch.equal(found.as_tensor(), expected.get(axes, given.movedim(-1, 0)))
    assert found.shape[0] == channels and found.dtype == torch.float32
    assert list(found.meta["spatial_shape"]) == list(found.shape[1:])


def test_what_the_loader_gave_passes_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(values(5, 6).numpy(), np.diag([2.0, 3, 1, 1])), file)
    loaded = LoadImageChecked(2)(file)
    assert PrepareImage(2)(loaded) is loaded
    assert PrepareImaged("image", 2)({"image": loaded, "other": 1}) == {"image": loaded, "other": 1}


def test_an_array_becomes_what_the_loader_makes_of_its_file(tmp_path: Path) -> None:
    voxels, affine = np.random.default_rng(0).integers(-50, 900, (5, 6, 4)).astype(np.int16), np.diag([-2.0, 3, 4, 1])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii")
    loaded = LoadImageChecked(3)(tmp_path / "a.nii")
    found = PrepareImage(3)(MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine)))
    assert torch.equal(found.as_tensor(), loaded.as_tensor())
    for key in ("source_range", "eight_bit"):
        assert found.meta[key] == loaded.meta[key]
    np.testing.assert_allclose(found.affine, loaded.affine)
    small = found[:, ::2, ::2, ::2]
    assert resize_to_source(torch.zeros_like(small.as_tensor()), found).shape == found.shape


def test_eight_bits_keep_their_range_and_names_are_kept_alone() -> None:
    picture = torch.randint(10, 90, (5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = PrepareImage(2)(MetaTensor(picture, meta={"PatientName": "A", "filename_or_obj": "x.png"}))
    assert found.meta["source_range"] == (0.0, 255.0) and found.meta["eight_bit"] is True
    assert "PatientName" not in found.meta and found.meta["filename_or_obj"] == "x.png"
    assert "filename_or_obj" not in PrepareImage(2)(picture.numpy()).meta


@pytest.mark.parametrize(("shape", "dims", "channels"), [((4, 5, 6), 2, 1), ((5,), 2, 1), ((1, 4, 5, 6), 2, 1)])
def test_axes_that_do_not_fit_are_refused(shape: tuple[int, ...], dims: int, channels: int) -> None:
    with pytest.raises(ValueError, match=rf"shape \({shape[0]},.*no image of {dims} spatial axes.*set in_channels"):
        PrepareImage(dims, channels)(values(*shape))


def test_bad_values_and_arguments_are_refused() -> None:
    broken = values(5, 6)
    broken[2, 3] = NAN
    with pytest.raises(ValueError, match=r"image b.png holds NaN"):
        PrepareImage(2)(MetaTensor(broken, meta={"filename_or_obj": "b.png"}))
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), but in_channels=3"):
        PrepareImage(2, 3)(values(5, 6))
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        PrepareImage(4)
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        PrepareImage(2, 0)
    with pytest.raises(KeyError):
        PrepareImaged("image", 2)({})
    assert PrepareImaged("image", 2, allow_missing_keys=True)({}) == {}
