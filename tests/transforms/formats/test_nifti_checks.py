# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import re
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_anomaly.transforms import LoadImageChecked

VOXELS = np.random.default_rng(0).integers(0, 4000, (4, 5, 6)).astype(np.int16)
AFFINE = np.array([[-2.0, 0, 0, 9], [0, 1.5, 0.2, -3], [0, -0.2, 3, 4], [0, 0, 0, 1]])


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + reason):
        LoadImageChecked()(path)


@pytest.mark.parametrize("dtype", [">i2", ">u2", ">i4", ">f4", ">f8", "<i2"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_both_byte_orders_are_read(tmp_path: Path, dtype: str, scaled: bool, suffix: str) -> None:
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    image = nib.Nifti1Image(VOXELS, AFFINE, header)
    image.header.set_slope_inter(*((2, 5) if scaled else (1, 0)))
    image.to_filename(tmp_path / f"a.{suffix}")
    stored = nib.load(tmp_path / f"a.{suffix}")
    assert stored.header.endianness == dtype[0]
    loaded = LoadImageChecked(spatial_dims=3)(tmp_path / f"a.{suffix}")
    assert torch.equal(loaded.as_tensor()[0], torch.from_numpy(stored.get_fdata().astype(np.float32)))
    assert np.allclose(loaded.affine.numpy(), AFFINE, atol=1e-6)


def test_complex_color_and_five_axes(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image((VOXELS + 1j).astype(np.complex64), AFFINE), tmp_path / "complex.nii")
    _refused(tmp_path / "complex.nii", r"complex values \(complex64\), of which the imaginary part would be lost")
    colors = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colors, AFFINE), tmp_path / "color.nii")
    _refused(tmp_path / "color.nii", "color voxels .*fourth axis")
    nib.save(nib.Nifti1Image(VOXELS[..., None, None], AFFINE), tmp_path / "five.nii")
    _refused(tmp_path / "five.nii", r"has 5 axes \(4, 5, 6, 1, 1\)")


BAD_PLACES = {
    "zero": np.diag([0.0, 0, 0, 1]),
    "singular": np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "one axis without length": np.diag([1.0, 1, 0, 1]),
    "not a number": np.diag([1.0, np.nan, 1, 1]),
    "infinite": np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, np.inf]] + [[0] * 4] * 3),
}


@pytest.mark.parametrize("place", BAD_PLACES)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_place_that_is_none(tmp_path: Path, place: str, suffix: str) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    for axis, name in enumerate("xyz"):
        image.header[f"srow_{name}"] = BAD_PLACES[place][axis]
    image.header["sform_code"], image.header["qform_code"], image.header["vox_offset"] = 2, 0, 352
    path = tmp_path / f"a.{suffix}"
    opener = gzip.open if suffix == "nii.gz" else open
    with opener(path, "wb") as stream:
        stream.write(image.header.binaryblock + bytes(4) + VOXELS.tobytes(order="F"))
    _refused(path, "has no place in space, .*: write a right one")


def test_voxel_sizes_of_zero(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.header["vox_offset"] = 352
    image.header["pixdim"][1:4] = (1, 0, 1)
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + VOXELS.tobytes(order="F"))
    _refused(tmp_path / "a.nii", r"has voxel sizes \[1.0, 0.0, 1.0\]")


def test_files_shorter_than_their_header_says(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-1])
    _refused(tmp_path / "cut.nii", "holds 239 bytes of pixels, but its header promises 240")
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(whole)[:-30])
    _refused(tmp_path / "cut.nii.gz", "cannot be read")
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(whole[:-1]))
    _refused(tmp_path / "short.nii.gz", "cannot be read")


def test_a_small_file_that_becomes_a_huge_one(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 30000))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(2**22)))
    tracemalloc.start()
    try:
        _refused(tmp_path / "a.nii.gz", "would take 216000000000000 bytes in memory.*MONAI_ANOMALY_MAX_IMAGE_BYTES")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_limit_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), tmp_path / "a.nii")
    monkeypatch.setenv("MONAI_ANOMALY_MAX_IMAGE_BYTES", "239")
    _refused(tmp_path / "a.nii", "would take 240 bytes in memory, more than 239")
    monkeypatch.setenv("MONAI_ANOMALY_MAX_IMAGE_BYTES", "240")
    assert LoadImageChecked()(tmp_path / "a.nii").shape == (1, 4, 5, 6)
    monkeypatch.setenv("MONAI_ANOMALY_MAX_IMAGE_BYTES", "much")
    with pytest.raises(ValueError, match="must be a number of bytes, got 'much'"):
        LoadImageChecked()(tmp_path / "a.nii")


@pytest.mark.parametrize(("kind", "first"), [(nib.Nifti1Image, 352), (nib.Nifti2Image, 544)])
def test_pixels_that_begin_in_the_header(tmp_path: Path, kind: type, first: int) -> None:
    path = tmp_path / "a.nii"
    nib.save(kind(VOXELS, AFFINE), path)
    LoadImageChecked(spatial_dims=3)(path)
    content = path.read_bytes()
    place, code = (108, "<f") if first == 352 else (168, "<q")
    for offset, reason in ((0, f"begin at byte 0, within its header of {first} bytes"), (first - 16, "too low")):
        path.write_bytes(content[:place] + struct.pack(code, offset) + content[place + struct.calcsize(code) :])
        _refused(path, reason)
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        _refused(tmp_path / "b.nii.gz", reason)
