# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Orientationd, Resized
from PIL import Image

from monai_anomaly.data.phantom import PHANTOM_AFFINE
from monai_anomaly.transforms import (
    LoadImageChecked,
    LoadImageCheckedd,
    SaveImageMapd,
    SaveRestorationd,
    ScaleSourceRanged,
)

DRAW = np.random.default_rng(0)


def load(path: Path, *more: Any, scale: Any = None) -> dict[str, Any]:
    """An image as a bundle brings it to its network."""
    transforms = [LoadImageCheckedd("image"), scale or ScaleSourceRanged("image"), *more]
    sample: dict[str, Any] = Compose(transforms)({"image": str(path)})
    return sample


def save(sample: dict[str, Any], restoration: Any, output: Path, **options: Any) -> Path:
    """Save a restoration (C, *S) and return the one file that this made."""
    before = set(output.glob("*")) if output.is_dir() else set()
    given = {**sample, "reconstruction": torch.as_tensor(restoration, dtype=torch.float32)}
    result = SaveRestorationd("reconstruction", output, **options)(given)
    assert result.keys() == given.keys() and all(result[key] is given[key] for key in given)
    (path,) = set(output.glob("*")) - before
    return path


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("RGB", 3), ("LA", 2), ("RGBA", 4)], ids=["gray", "rgb", "alpha", "rgba"]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_8_bit_picture_comes_back_to_the_level(tmp_path: Path, mode: str, channels: int, suffix: str) -> None:
    shape = (8, 16) if channels == 1 else (8, 16, channels)
    pixels = DRAW.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    sample = load(tmp_path / f"a{suffix}")
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    assert path.name.startswith("a_") and path.name.endswith("_reconstruction.png")
    with Image.open(path) as stored:
        assert stored.mode == mode and np.array_equal(np.asarray(stored), pixels)


def test_an_8_bit_value_is_the_formula_and_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 100, np.uint8)).save(tmp_path / "a.jpg")
    values = np.array([[-1.5, -1.0], [0.0, 0.5], [1.0, 7.0]])
    path = save(load(tmp_path / "a.jpg"), values[None], tmp_path / "restored")
    with Image.open(path) as stored:
        assert np.asarray(stored).tolist() == [[0, 128, 255], [0, 191, 255]]  # rint((v + 1) / 2 * 255), rows are y


def test_a_16_bit_picture_comes_back_to_the_level(tmp_path: Path) -> None:
    pixels = DRAW.integers(700, 52000, (8, 16)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sample = load(tmp_path / "a.png")
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    with Image.open(path) as stored:
        assert stored.mode.startswith("I;16") and np.array_equal(np.asarray(stored), pixels)


def test_fractions_of_a_tiff_are_kept(tmp_path: Path) -> None:
    pixels = DRAW.random((5, 7)).astype(np.float32) * 0.01 - 3
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    sample = load(tmp_path / "a.tif")
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    assert path.name.endswith(".nii.gz")
    assert np.allclose(np.asarray(nib.load(path).dataobj)[..., 0].T, pixels, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 1)])
def test_a_nifti_keeps_place_size_channels_and_units(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    voxels = DRAW.integers(-300, 1800, (*shape, channels)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels if channels > 1 else voxels[..., 0], PHANTOM_AFFINE), tmp_path / "a.nii.gz")
    sample = load(tmp_path / "a.nii.gz")
    assert sample["image"].shape == (channels, *shape)
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    stored, original = nib.load(path), nib.load(tmp_path / "a.nii.gz")
    assert stored.shape == original.shape and stored.get_data_dtype() == np.float32
    assert np.allclose(stored.affine, original.affine, atol=1e-6)
    assert np.abs(np.asarray(stored.dataobj) - np.asarray(original.dataobj)).max() < 1e-3
    again = LoadImageChecked(3)(path)
    assert torch.allclose(again.as_tensor(), LoadImageChecked(3)(tmp_path / "a.nii.gz").as_tensor(), atol=1e-3)
    assert torch.allclose(again.affine, LoadImageChecked(3)(tmp_path / "a.nii.gz").affine, atol=1e-5)


def test_a_2d_restoration_of_several_channels_is_one_slice(tmp_path: Path) -> None:
    voxels = DRAW.random((9, 8, 1, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, PHANTOM_AFFINE), tmp_path / "a.nii.gz")
    sample = Compose([LoadImageCheckedd("image", 2), ScaleSourceRanged("image")])({"image": str(tmp_path / "a.nii.gz")})
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    assert nib.load(path).shape == (9, 8, 1, 3) and np.allclose(np.asarray(nib.load(path).dataobj), voxels, atol=1e-6)


def test_resized_and_turned_images_come_back(tmp_path: Path) -> None:
    # rising along each axis, which linear interpolation keeps everywhere but at the edges
    voxels = np.tensordot([1.0, 10.0, 100.0], np.indices((9, 8, 7)), 1).astype(np.float32)
    turned = np.array([[0, 0, -2.0, 9], [1.5, 0, 0, -3], [0, -1, 0, 4], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels, turned), tmp_path / "a.nii.gz")
    more = [Orientationd("image", "RAS", labels=None), Resized("image", (9, 8, 8), mode="trilinear")]
    sample = load(tmp_path / "a.nii.gz", *more)
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    stored = np.asarray(nib.load(path).dataobj)
    assert stored.shape == (9, 8, 7) and np.allclose(nib.load(path).affine, turned)
    assert np.abs(stored - voxels)[2:-2, 2:-2, 2:-2].max() < 0.01


def test_it_lies_beside_the_map_of_the_same_image(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(DRAW.random((5, 6, 4)), PHANTOM_AFFINE), tmp_path / "a.nii.gz")
    sample = load(tmp_path / "a.nii.gz")
    SaveImageMapd("anomaly_map", tmp_path / "maps")({**sample, "anomaly_map": torch.zeros(1, 5, 6, 4)})
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    (saved,) = (tmp_path / "maps").iterdir()
    assert saved.name.replace("anomaly_map", "reconstruction") == path.name


def test_a_fixed_range_and_other_ends_are_undone(tmp_path: Path) -> None:
    voxels = np.array([[[-2000, -1000, -300, 400, 3000]]], dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "ct.nii.gz")
    options: dict[str, Any] = {"minv": 0.0, "maxv": 5.0, "source_range": (-1000, 400)}
    sample = load(tmp_path / "ct.nii.gz", scale=ScaleSourceRanged("image", **options))
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored", **options)
    expected = np.array([-1000, -1000, -300, 400, 400])
    assert np.allclose(np.asarray(nib.load(path).dataobj).ravel(), expected, atol=1e-3)


def test_a_constant_image_stays_what_it_is(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), 7.5), np.eye(4)), tmp_path / "a.nii.gz")
    sample = load(tmp_path / "a.nii.gz")
    path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
    assert (np.asarray(nib.load(path).dataobj) == 7.5).all()


def test_the_range_survives_a_batch(tmp_path: Path) -> None:
    pixels = [DRAW.integers(0, high, (6, 8)).astype(kind) for high, kind in ((256, np.uint8), (60000, np.uint16))]
    for name, values in zip("ab", pixels, strict=True):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    transform = Compose([LoadImageCheckedd("image", 2), ScaleSourceRanged("image")])
    items = [{"image": str(tmp_path / f"{name}.png")} for name in "ab"]
    (batch,) = DataLoader(Dataset(items, transform), batch_size=2)
    for sample, values in zip(decollate_batch(batch), pixels, strict=True):
        path = save(sample, sample["image"].as_tensor(), tmp_path / "restored")
        with Image.open(path) as stored:
            assert np.array_equal(np.asarray(stored), values)


def test_keys_may_be_missing(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    bare = load(tmp_path / "a.png")
    assert SaveRestorationd("reconstruction", tmp_path / "x", allow_missing_keys=True)(bare).keys() == bare.keys()
    with pytest.raises(KeyError):
        SaveRestorationd("reconstruction", tmp_path / "x")(bare)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_refused_with_its_file(tmp_path: Path, bad: float) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    values = torch.zeros(1, 4, 4)
    values[0, 1, 2] = bad
    with pytest.raises(ValueError, match="'reconstruction' of .*a.png holds NaN or infinity"):
        save(load(tmp_path / "a.png"), values, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_images_that_say_nothing_of_their_file_are_refused(tmp_path: Path) -> None:
    saver = SaveRestorationd("reconstruction", tmp_path)
    values = torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="'image' carries no file name: load it with LoadImageCheckedd"):
        saver({"image": MetaTensor(values), "reconstruction": values})
    named = MetaTensor(values, meta={"filename_or_obj": "a.png", "spatial_shape": np.array([4, 4])})
    with pytest.raises(ValueError, match="does not say the range of its file: load it with LoadImageChecked"):
        saver({"image": named, "reconstruction": values})


@pytest.mark.parametrize("options", [{"minv": 1, "maxv": 1}, {"source_range": (3, 3)}, {"source_range": (1, 2, 3)}])
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"minv must be below maxv|two ascending numbers or None, got \("):
        SaveRestorationd("reconstruction", "nowhere", **options)
