# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_anomaly.transforms import NOT_ANNOTATED, LoadImageChecked, PrepareLabel, PrepareLabeld, ResizeLabeld

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 6), dtype=np.uint8)
AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])


def picture(path: Path, pixels: np.ndarray = PIXELS) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


def volume(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return str(path)


@pytest.mark.parametrize(("target", "value"), [(0, 0.0), (1, -1.0), (None, -1.0), (-1, -1.0)])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5, 6)])
@pytest.mark.parametrize("label", [None, ""])
def test_images_without_a_mask(target: int | None, value: float, shape: tuple[int, ...], label: str | None) -> None:
    image = MetaTensor(torch.rand(shape), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    result = PrepareLabel()(image, label, target)
    assert torch.equal(result.as_tensor(), torch.full((1, *shape[1:]), value))
    assert result.dtype == torch.float32 and torch.equal(result.affine, image.affine)


def test_mask_lies_on_the_image_as_drawn(tmp_path: Path) -> None:
    """A mask drawn where the picture is bright marks exactly these pixels, whatever its positive values."""
    image = LoadImageChecked()(picture(tmp_path / "a.png"))
    mask = np.where(PIXELS > 200, PIXELS // 2, 0).astype(np.uint8)
    for suffix in ("png", "tif"):
        label = PrepareLabel()(image, picture(tmp_path / f"m.{suffix}", mask), 1)
        assert torch.equal(label.as_tensor(), (image.as_tensor() > 200).float())
        assert 0 < label.sum() < label.numel()
        assert label.meta["filename_or_obj"].endswith(f"m.{suffix}")


def test_volume(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 3, (4, 5, 6)).astype(np.int16)
    image = LoadImageChecked()(volume(tmp_path / "a.nii.gz", voxels))
    path = volume(tmp_path / "m.nii.gz", (voxels == 2).astype(np.uint8) * 4)
    result = PrepareLabeld()({"image": image, "label": path, "target": 1})
    assert torch.equal(result["label"].as_tensor(), (image.as_tensor() == 2).float())
    assert np.allclose(result["label"].affine.numpy(), AFFINE)


def test_volume_of_other_directions_is_refused(tmp_path: Path) -> None:
    voxels = np.ones((4, 5, 6), dtype=np.uint8)
    image = LoadImageChecked()(volume(tmp_path / "a.nii.gz", voxels))
    path = volume(tmp_path / "m.nii.gz", voxels, np.diag([1.0, 2.0, 3.0, 1.0]))
    with pytest.raises(ValueError, match=r"m\.nii\.gz has axis directions.*a\.nii\.gz.*check_orientation"):
        PrepareLabel()(image, path, 1)
    assert PrepareLabel(check_orientation=False)(image, path, 1).sum() == 120


def test_channels_of_a_mask(tmp_path: Path) -> None:
    image = LoadImageChecked()(picture(tmp_path / "a.png"))
    same = np.repeat((PIXELS > 99)[..., None] * np.uint8(255), 3, axis=2)
    assert PrepareLabel()(image, picture(tmp_path / "m.png", same), 1).sum() == (PIXELS > 99).sum()
    same[0, 0, 0] ^= 1
    with pytest.raises(ValueError, match=r"m\.png of image .*a\.png has 3 different channels: save it as one"):
        PrepareLabel()(image, picture(tmp_path / "m.png", same), 1)


def test_wrong_masks_are_named_with_both_files(tmp_path: Path) -> None:
    image = LoadImageChecked()(picture(tmp_path / "a.png"))
    turned = picture(tmp_path / "turned.png", PIXELS.T.copy())
    with pytest.raises(ValueError, match=r"turned\.png is of size \(9, 6\).*a\.png of \(6, 9\).*grid of its image"):
        PrepareLabel()(image, turned, 1)
    with pytest.raises(ValueError, match=r"a\.png has target 0.*m\.png marks \d+ pixels"):
        PrepareLabel()(image, picture(tmp_path / "m.png"), 0)
    with pytest.raises(ValueError, match=r"m\.jpg of image .*a\.png is a JPEG.*PNG"):
        PrepareLabel()(image, picture(tmp_path / "m.jpg"), 1)
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        PrepareLabel()(image, str(tmp_path / "gone.png"), 1)
    deep = volume(tmp_path / "deep.nii.gz", np.ones((6, 9, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"deep\.nii\.gz has 3 spatial axes"):
        PrepareLabel()(image, deep, 1)


def test_empty_mask_of_a_healthy_image(tmp_path: Path) -> None:
    image = LoadImageChecked()(picture(tmp_path / "a.png"))
    assert PrepareLabel()(image, picture(tmp_path / "m.png", PIXELS * 0), 0).abs().sum() == 0


def test_dictionary_version_makes_the_key(tmp_path: Path) -> None:
    image = torch.zeros(1, 4, 4)
    data = {"x": image, "t": 0}
    result = PrepareLabeld("mask", image_key="x", target_key="t")(data)
    assert torch.equal(result["mask"].as_tensor(), torch.zeros(1, 4, 4)) and "mask" not in data


def test_a_lesion_that_resizing_loses_is_not_annotated_rather_than_normal() -> None:
    labels = {"tiny": torch.zeros(1, 64, 64), "large": torch.zeros(1, 64, 64), "none": torch.zeros(1, 64, 64)}
    labels["tiny"][:, 10, 10] = 1  # nearest-exact to 8 x 8 reads the centers of blocks of 8
    labels["large"][:, 16:48, 16:48] = 1
    small = ResizeLabeld(list(labels), (8, 8))(labels)
    assert (small["tiny"] == NOT_ANNOTATED).all()
    assert small["large"].sum() == 16 and small["none"].sum() == 0 and small["none"].shape == (1, 8, 8)
