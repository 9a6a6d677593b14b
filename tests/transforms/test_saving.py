# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Orientationd, Resized
from PIL import Image

from monai_anomaly.data import make_phantom
from monai_anomaly.data.phantom import PHANTOM_AFFINE
from monai_anomaly.transforms import LoadImageCheckedd, SaveImageMapd, read_map, resize_to_source
from monai_anomaly.transforms.postprocessing import ScoreMapd

DRAW = np.random.default_rng(0)


def load(path: Path, size: tuple[int, ...] | None = None) -> dict[str, Any]:
    sample = LoadImageCheckedd("image", 2 if size is None else len(size))({"image": str(path)})
    return sample if size is None else Resized("image", size, mode="area")(sample)


def save(sample: dict[str, Any], anomaly_map: Any, output: Path, **options: Any) -> Path:
    """Save a map (x, y[, z]) and return the one file that this made."""
    before = set(output.glob("*")) if output.is_dir() else set()
    values = torch.as_tensor(anomaly_map, dtype=torch.float32)[None]
    SaveImageMapd("anomaly_map", output, **options)({**sample, "anomaly_map": values})
    (path,) = set(output.glob("*")) - before
    return path


def linear(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation axis by axis, pixel areas aligned, edges repeated: the definition, one sample at a time."""
    for axis, count in enumerate(size):
        old = values.shape[axis]
        slices = []
        for i in range(count):
            position = min(max((i + 0.5) * old / count - 0.5, 0.0), old - 1.0)
            below = min(int(position), max(old - 2, 0))
            share = position - below
            slices.append(values.take(below, axis) * (1 - share) + values.take(min(below + 1, old - 1), axis) * share)
        values = np.stack(slices, axis)
    return values


def test_a_volume_comes_back_in_size_and_place(tmp_path: Path) -> None:
    make_phantom(tmp_path, 3, (20, 17, 18), num_training=1, num_unlabeled=0, num_validation=0, num_testing=0)
    source = tmp_path / "images" / "training_000.nii.gz"
    sample, values = load(source, (10, 12, 8)), DRAW.random((10, 12, 8))
    path = save(sample, values, tmp_path / "maps")
    stored, original = nib.load(path), nib.load(source)
    assert stored.shape == original.shape == (20, 17, 18) and stored.get_data_dtype() == np.float32
    assert np.allclose(stored.affine, original.affine, atol=1e-6) and np.allclose(
        stored.affine, PHANTOM_AFFINE, atol=1e-6
    )
    assert np.allclose(read_map(path), linear(values, (20, 17, 18)), atol=1e-5)
    assert path.name.startswith("training_000_") and path.name.endswith("_anomaly_map.nii.gz")


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (4, 0), (0, 1), (2, 1)])
def test_the_header_says_of_the_place_what_the_file_says(tmp_path: Path, sform: int, qform: int) -> None:
    affine = np.array([[0.0, -2.0, 0.0, 7.0], [2.0, 0.0, 0.0, -3.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
    picture = nib.Nifti1Image(DRAW.random((6, 5, 4)).astype(np.float32), affine)
    picture.set_sform(affine, sform)
    picture.set_qform(affine, qform)
    picture.header.set_xyzt_units("mm", "sec")
    nib.save(picture, tmp_path / "a.nii")
    stored = nib.load(save(load(tmp_path / "a.nii", (6, 5, 4)), DRAW.random((6, 5, 4)), tmp_path / "maps"))
    assert (stored.header["sform_code"], stored.header["qform_code"]) == (sform, qform)
    assert np.allclose(stored.affine, affine, atol=1e-5) and stored.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 1)])
def test_a_slice_keeps_its_place(tmp_path: Path, shape: tuple[int, ...]) -> None:
    voxels = DRAW.integers(0, 100, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, PHANTOM_AFFINE), tmp_path / "a.nii")
    values = DRAW.random((6, 6))
    path = save(load(tmp_path / "a.nii", (6, 6)), values, tmp_path / "maps")
    assert np.allclose(read_map(path)[..., 0], linear(values, (12, 9)), atol=1e-6)
    assert nib.load(path).shape == (12, 9, 1)
    assert np.allclose(nib.load(path).affine, nib.load(tmp_path / "a.nii").affine, atol=1e-6)


def test_a_map_of_the_files_size_is_stored_exactly(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 4), np.int16), PHANTOM_AFFINE), tmp_path / "a.nii.gz")
    values = DRAW.normal(size=(5, 6, 4)).astype(np.float32)
    path = save(load(tmp_path / "a.nii.gz", (5, 6, 4)), values, tmp_path / "maps")
    assert np.array_equal(read_map(path), values)


@pytest.mark.parametrize("suffix", [".dcm", ".123"])
def test_dicom_maps_lie_where_their_images_lie(tmp_path: Path, suffix: str) -> None:
    image = itk.image_from_array(DRAW.integers(0, 900, (1, 7, 5)).astype(np.int16))
    image.SetSpacing([0.5, 2.0, 3.0])
    image.SetOrigin([10.0, -20.0, 30.0])
    itk.imwrite(image, str(tmp_path / "written.dcm"))
    source = (tmp_path / "written.dcm").rename(tmp_path / f"1.2.840{suffix}")
    values = DRAW.random((5, 7))
    path = save(load(source), values, tmp_path / "maps")
    # the whole number is kept: its last part is what tells files apart
    assert path.name.startswith("1.2.840_" if suffix == ".dcm" else "1.2.840.123_")
    assert np.allclose(read_map(path)[..., 0], values, atol=1e-6)
    stored, original = itk.imread(str(path)), itk.imread(str(source))
    for get in ("GetSpacing", "GetOrigin"):
        assert np.allclose(list(getattr(stored, get)()), list(getattr(original, get)()), atol=1e-5), get
    assert np.allclose(itk.array_from_matrix(stored.GetDirection()), itk.array_from_matrix(original.GetDirection()))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".PNG"])
def test_a_picture_comes_back_as_seen(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((8, 16), dtype=np.uint8)
    pixels[:4, 8:] = 200  # top right
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    sample = load(tmp_path / f"a{suffix}")
    path = save(sample, sample["image"][0].as_tensor() - 50, tmp_path / "maps")
    with Image.open(path) as stored:
        assert stored.size == (16, 8) and stored.mode.startswith("I;16")
    values = read_map(path)
    assert values.shape == (8, 16) and values.dtype == np.float32 and path.suffix == ".png"
    expected = sample["image"][0].numpy().T - 50
    assert np.abs(values - expected).max() <= 0.5 * np.ptp(expected) / 65535 + 1e-5
    assert values[1, 14] > 100 and values[6, 1] < 0 and values[6, 14] < 0 and values[1, 1] < 0


def test_values_are_recovered_to_half_a_level(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 13), np.uint8)).save(tmp_path / "a.png")
    for scale, offset in ((1.0, 0.0), (1e-6, 3e-6), (5e4, -9e4)):
        values = DRAW.random((13, 9)).astype(np.float32) * scale + offset
        path = save(load(tmp_path / "a.png"), values, tmp_path / f"maps{scale}")
        assert np.abs(read_map(path) - values.T).max() <= np.ptp(values) / 65535
    small = DRAW.random((5, 6))
    resized = read_map(save(load(tmp_path / "a.png", (5, 6)), small, tmp_path / "resized"))
    assert np.abs(resized - linear(small, (13, 9)).T).max() <= 2 / 65535


def test_pages_of_a_tiff_are_a_volume(tmp_path: Path) -> None:
    pages = [Image.fromarray(DRAW.integers(0, 255, (6, 8), dtype=np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    values = DRAW.random((8, 6, 3))
    path = save(load(tmp_path / "a.tif", (8, 6, 3)), values, tmp_path / "maps")
    assert path.name.endswith(".nii.gz") and np.allclose(read_map(path), values, atol=1e-6)


def test_a_constant_map(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert np.allclose(read_map(save(load(tmp_path / "a.png"), np.full((5, 4), -2.5), tmp_path / "maps")), -2.5)


def test_a_fixed_range_clips_and_is_common_to_all(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.png")
    values = np.array([[-1.0, 0.0], [0.5, 1.0], [2.0, 9.0]])
    path = save(load(tmp_path / "a.png"), values, tmp_path / "maps", value_range=(0, 2))
    assert np.allclose(read_map(path), np.clip(values, 0, 2).T, atol=2 / 65535)
    with Image.open(path) as stored:
        assert np.asarray(stored).tolist() == [[0, 16384, 65535], [0, 32768, 65535]]


def test_equal_names_do_not_collide(tmp_path: Path) -> None:
    names = ["one/a.png", "two/a.png", "one/a.tif", "one/a.b.png", "one/a.c.png"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
        save(load(tmp_path / name), np.full((4, 4), float(i)), tmp_path / "maps")
    found = sorted((tmp_path / "maps").iterdir())
    assert sorted(float(read_map(path)[0, 0]) for path in found) == [0, 1, 2, 3, 4]


def test_a_map_is_written_again_under_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for name, value in (("a.png", 1.0), (str(tmp_path / "a.png"), 2.0), ("./x/../a.png", 3.0)):
        (tmp_path / "x").mkdir(exist_ok=True)
        sample = LoadImageCheckedd("image")({"image": name})
        SaveImageMapd("anomaly_map", "maps")({**sample, "anomaly_map": torch.full((1, 4, 4), value)})
    (path,) = (tmp_path / "maps").iterdir()
    assert (read_map(path) == 3.0).all()


def test_a_failed_write_leaves_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    samples = [(load(tmp_path / "a.png"), (4, 4)), (load(tmp_path / "a.nii.gz", (4, 4, 4)), (4, 4, 4))]
    paths = [save(sample, np.ones(size), tmp_path / "maps") for sample, size in samples]

    def fail(*_: Any) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", fail)
    for sample, size in samples:
        with pytest.raises(OSError, match="disk is full"):
            save(sample, np.zeros(size), tmp_path / "maps")
    assert sorted((tmp_path / "maps").iterdir()) == sorted(paths) and all((read_map(path) == 1).all() for path in paths)


def test_the_sample_passes_through(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    sample = {**load(tmp_path / "a.png"), "pred": torch.rand(1, 4, 4)}
    scored = ScoreMapd("pred")(sample)
    result = SaveImageMapd(["anomaly_map", "pred"], tmp_path / "maps")(scored)
    assert result.keys() == scored.keys() and all(result[key] is scored[key] for key in scored)
    assert len(list((tmp_path / "maps").iterdir())) == 2
    bare = {"image": sample["image"]}
    assert SaveImageMapd("anomaly_map", tmp_path, allow_missing_keys=True)(bare) == bare
    with pytest.raises(KeyError):
        SaveImageMapd("anomaly_map", tmp_path)(bare)


def test_resizing_takes_tensors_with_and_without_metadata() -> None:
    file = MetaTensor(torch.zeros(1, 6, 5), meta={"spatial_shape": np.array([6, 5]), "original_affine": np.eye(4)})
    image = Resized("image", (3, 4), mode="area")({"image": file})["image"]
    values = torch.rand(1, 3, 4)
    expected = linear(values[0].numpy(), (6, 5))
    for given in (values, MetaTensor(values)):
        resized = resize_to_source(given, image)
        assert type(resized) is torch.Tensor and np.allclose(resized[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [None, (9, 8, 8)])
def test_axes_turned_on_loading_are_turned_back(tmp_path: Path, size: tuple[int, ...] | None) -> None:
    # rising by another step along each axis, which linear interpolation keeps everywhere but at the edges
    voxels = np.tensordot([1.0, 10.0, 100.0], np.indices((9, 8, 7)), 1).astype(np.float32)
    turned = np.array([[0, 0, -2.0, 9], [1.5, 0, 0, -3], [0, -1, 0, 4], [0, 0, 0, 1]])  # axes: front, bottom, left
    nib.save(nib.Nifti1Image(voxels, turned), tmp_path / "a.nii.gz")
    sample = Orientationd("image", "RAS", labels=None)(
        LoadImageCheckedd("image", 3)({"image": str(tmp_path / "a.nii.gz")})
    )
    assert sample["image"].shape == (1, 7, 9, 8)
    if size is not None:
        sample = Resized("image", size, mode="trilinear")(sample)
    stored = read_map(save(sample, sample["image"][0].as_tensor(), tmp_path / "maps"))
    # the image as its own map: what comes back is the file's content, where sizes agree to the last bit
    assert stored.shape == (9, 8, 7)
    difference = np.abs(stored - voxels)
    assert difference.max() == 0 if size is None else difference[2:-2, 2:-2, 2:-2].max() < 0.01


def test_a_cropped_image_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((12, 12, 12), np.int16), PHANTOM_AFFINE), tmp_path / "a.nii.gz")
    sample = CenterSpatialCropd("image", (6, 6, 6))(load(tmp_path / "a.nii.gz", (12, 12, 12)))
    with pytest.raises(ValueError, match="a.nii.gz was cropped, padded or rotated"):
        save(sample, np.zeros((6, 6, 6)), tmp_path / "maps")


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, float("nan")), (0, float("inf")), (0, 1, 2), (0,)])
def test_a_bad_range_is_refused(value_range: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"two finite numbers, low < high, got \("):
        SaveImageMapd("anomaly_map", "nowhere", value_range=value_range)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused_with_its_file(tmp_path: Path, bad: float) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    values = np.ones((4, 4))
    values[1, 2] = bad
    with pytest.raises(ValueError, match="'anomaly_map' of .*a.png holds NaN or infinity"):
        save(load(tmp_path / "a.png"), values, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_what_names_no_file_or_is_no_map_is_refused(tmp_path: Path) -> None:
    saver = SaveImageMapd("anomaly_map", tmp_path)
    for image in (torch.zeros(1, 4, 4), MetaTensor(torch.zeros(1, 4, 4))):
        with pytest.raises(ValueError, match="'image' carries no file name: load it with LoadImageCheckedd"):
            saver({"image": image, "anomaly_map": torch.zeros(1, 4, 4)})
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is not an anomaly map.*give a file that SaveImageMapd wrote"):
        read_map(tmp_path / "a.png")
