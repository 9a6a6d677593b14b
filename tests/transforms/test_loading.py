# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pickle
import re
import struct
import zlib
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import SaveImage
from PIL import Image

from monai_anomaly.transforms import LoadImageChecked, LoadImageCheckedd

DRAW = np.random.default_rng(0)
GRAY8 = DRAW.integers(0, 256, (7, 5), dtype=np.uint8)
GRAY16 = DRAW.integers(0, 65536, (7, 5), dtype=np.uint16)
RGB8 = DRAW.integers(0, 256, (7, 5, 3), dtype=np.uint8)
RGB16 = DRAW.integers(0, 65536, (7, 5, 3), dtype=np.uint16)
AFFINE = np.array([[-2.0, 0, 0, 9], [0, 1.5, 0.2, -3], [0, -0.2, 3, 4], [0, 0, 0, 1]])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG by the format's own definition, so that no library's habits decide what is in the file."""
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    depth = 8 * pixels.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def expected(pixels: np.ndarray) -> torch.Tensor:
    """Return rows and columns of a picture as channel, x, y."""
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(channels.astype(np.float32)).permute(2, 1, 0)


@pytest.mark.parametrize("pixels", [GRAY8, GRAY16, RGB8, RGB16, RGB8[..., [0, 1, 2, 0]], RGB16[..., :2]])
def test_png_keeps_values_channels_and_range(tmp_path: Path, pixels: np.ndarray) -> None:
    write_png(tmp_path / "a.png", pixels)
    image = LoadImageChecked()(tmp_path / "a.png")
    assert isinstance(image, MetaTensor) and image.dtype == torch.float32
    assert torch.equal(image.as_tensor(), expected(pixels))
    eight = pixels.dtype == np.uint8
    assert image.meta["source_range"] == ((0.0, 255.0) if eight else (float(pixels.min()), float(pixels.max())))
    assert image.meta["filename_or_obj"] == str(tmp_path / "a.png")
    assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("pixels", [GRAY8, GRAY16, GRAY8.astype(np.float32) / 7, RGB8, RGB16])
def test_tiff_keeps_values_and_channels(tmp_path: Path, pixels: np.ndarray) -> None:
    itk.imwrite(itk.image_from_array(pixels, is_vector=pixels.ndim == 3), str(tmp_path / "a.tif"))
    image = LoadImageChecked(spatial_dims=2)(tmp_path / "a.tif")
    assert torch.equal(image.as_tensor(), expected(pixels))
    assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))


def test_big_endian_tiff(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (5, 7), GRAY16.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert torch.equal(LoadImageChecked()(tmp_path / "a.tif").as_tensor(), expected(GRAY16))


def test_pages_of_a_tiff_are_a_volume(tmp_path: Path) -> None:
    pages = [Image.fromarray(GRAY8), Image.fromarray(255 - GRAY8)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    image = LoadImageChecked(spatial_dims=3)(tmp_path / "a.tif")
    assert torch.equal(image.as_tensor(), torch.stack([expected(GRAY8), expected(255 - GRAY8)], -1))


def test_palette_and_bit_pictures_give_intensities(tmp_path: Path) -> None:
    palette = Image.fromarray(GRAY8 % 4, mode="P")
    palette.putpalette([250, 250, 250, 7, 7, 7, 99, 99, 99, 1, 1, 1])
    palette.save(tmp_path / "gray.png")
    values = np.array([250, 7, 99, 1], dtype=np.uint8)
    assert torch.equal(LoadImageChecked()(tmp_path / "gray.png").as_tensor(), expected(values[GRAY8 % 4]))
    palette.putpalette([250, 0, 0, 7, 7, 7, 99, 99, 99, 1, 1, 1])
    palette.save(tmp_path / "color.png")
    colors = np.array([[250, 0, 0], [7, 7, 7], [99, 99, 99], [1, 1, 1]], dtype=np.uint8)
    assert torch.equal(LoadImageChecked()(tmp_path / "color.png").as_tensor(), expected(colors[GRAY8 % 4]))
    for suffix in ("png", "tif"):
        Image.fromarray(GRAY8 > 99).save(tmp_path / f"bit.{suffix}")
        bits = LoadImageChecked()(tmp_path / f"bit.{suffix}")
        assert torch.equal(bits.as_tensor(), expected((GRAY8 > 99) * np.uint8(255)))


def test_jpeg(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 16, 3), (200, 30, 90), dtype=np.uint8)).save(tmp_path / "a.jpg", quality=95)
    image = LoadImageChecked(spatial_dims=2, in_channels=3)(tmp_path / "a.jpg")
    assert image.shape == (3, 16, 8) and image.meta["source_range"] == (0.0, 255.0)
    assert np.allclose(image.mean((1, 2)).numpy(), (200, 30, 90), atol=3)


@pytest.mark.parametrize(("pixels", "dtype"), [(GRAY8, np.uint8), (GRAY16, np.uint16)])
def test_saved_picture_is_the_loaded_one(tmp_path: Path, pixels: np.ndarray, dtype: type) -> None:
    write_png(tmp_path / "a.png", pixels)
    image = LoadImageChecked()(tmp_path / "a.png")
    if dtype is np.uint8:
        saver = SaveImage(tmp_path, "", ".png", np.uint8, resample=False, separate_folder=False, print_log=False)
        saver(image)
        stored = np.asarray(Image.open(tmp_path / "a_.png")) if (tmp_path / "a_.png").exists() else None
        stored = np.asarray(Image.open(tmp_path / "a.png")) if stored is None else stored
    else:  # MONAI's picture writer stores 8 bits; the array turned back must be the file's
        stored = image[0].numpy().T.astype(np.uint16)
    assert np.array_equal(stored, pixels)


def test_nifti_keeps_values_and_affine(tmp_path: Path) -> None:
    voxels = DRAW.integers(-900, 900, (4, 5, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "a.nii.gz")
    image = LoadImageChecked(spatial_dims=3, in_channels=1)(tmp_path / "a.nii.gz")
    assert torch.equal(image.as_tensor(), torch.from_numpy(voxels.astype(np.float32))[None])
    assert np.allclose(image.affine.numpy(), AFFINE, atol=1e-6)
    assert image.meta["source_range"] == (float(voxels.min()), float(voxels.max()))
    nib.save(nib.Nifti1Image(np.stack([voxels, voxels + 1], -1), AFFINE), tmp_path / "b.nii")
    assert LoadImageChecked(spatial_dims=3, in_channels=2)(tmp_path / "b.nii").shape == (2, 4, 5, 6)


def test_one_slice_nifti_is_squeezed_for_2d_only(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(GRAY8[..., None], AFFINE), tmp_path / "a.nii.gz")
    assert LoadImageChecked(spatial_dims=2)(tmp_path / "a.nii.gz").shape == (1, 7, 5)
    assert LoadImageChecked(spatial_dims=3)(tmp_path / "a.nii.gz").shape == (1, 7, 5, 1)
    assert LoadImageChecked()(tmp_path / "a.nii.gz").shape == (1, 7, 5, 1)
    assert LoadImageChecked(spatial_dims=2)(tmp_path / "a.nii.gz").meta["source_range"] == (0.0, 255.0)


def test_saved_slice_keeps_its_place(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(GRAY8[..., None].astype(np.int16), AFFINE), tmp_path / "a.nii.gz")
    image = LoadImageChecked(spatial_dims=2)(tmp_path / "a.nii.gz")
    SaveImage(tmp_path, "map", ".nii.gz", resample=True, separate_folder=False, print_log=False)(image)
    stored = nib.load(tmp_path / "a_map.nii.gz")
    assert np.array_equal(stored.get_fdata().squeeze(), GRAY8)
    assert np.allclose(stored.affine, AFFINE, atol=1e-6)


def make_files(folder: Path) -> dict[str, Path]:
    write_png(folder / "good.png", RGB8)
    write_png(folder / "big.png", DRAW.integers(0, 65536, (64, 64, 3), dtype=np.uint16))
    Image.fromarray(DRAW.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / "gray.png")
    Image.fromarray(DRAW.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / "gray.jpg")
    voxels = DRAW.normal(size=(16, 16, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "volume.nii.gz")
    for name in ("big.png", "gray.png", "gray.jpg", "volume.nii.gz"):
        content = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").touch()
    (folder / "text.dcm").write_text("not an image " * 50)
    (folder / "text.png").write_text("not an image " * 50)
    for name, bad in (("nan", np.nan), ("inf", np.inf)):
        voxels[3, 3, 3] = bad
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("empty.png", {}, "empty file.*copy it again"),
        ("cut_gray.png", {}, "cannot be read.*copy or export it again"),
        ("cut_gray.jpg", {}, "cannot be read.*copy or export it again"),
        ("cut_big.png", {}, "cannot be read.*copy or export it again"),
        ("cut_volume.nii.gz", {}, "cannot be read.*copy or export it again"),
        ("text.dcm", {}, "cannot be read.*copy or export it again"),
        ("text.png", {}, "cannot be read.*copy or export it again"),
        ("nan.nii.gz", {}, "NaN or infinite.*replace them"),
        ("inf.nii.gz", {}, "NaN or infinite.*replace them"),
        ("good.png", {"in_channels": 1}, r"3 channel\(s\), but in_channels=1.*network with in_channels=3"),
        ("good.png", {"spatial_dims": 3}, "2 spatial axes.*set spatial_dims to 2"),
        ("volume.nii.gz", {"spatial_dims": 2}, "3 spatial axes.*slices as separate images"),
    ],
)
def test_bad_files_are_named_with_a_remedy(tmp_path: Path, name: str, settings: dict[str, int], reason: str) -> None:
    path = make_files(tmp_path)[name]
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + reason):
        LoadImageChecked(**settings)(path)


def test_missing_file_and_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.png does not exist.*dataset_dir"):
        LoadImageChecked()(tmp_path / "none.png")
    with pytest.raises(ValueError, match="spatial_dims must be 2, 3 or None, got 4"):
        LoadImageChecked(spatial_dims=4)
    with pytest.raises(ValueError, match="in_channels must be at least 1 or None, got 0"):
        LoadImageCheckedd("image", in_channels=0)


def test_dictionary_version_and_mixed_batch(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", GRAY8)
    nib.save(nib.Nifti1Image(GRAY8[..., None].astype(np.int16).transpose(1, 0, 2), AFFINE), tmp_path / "b.nii.gz")
    loader = pickle.loads(pickle.dumps(LoadImageCheckedd(["image", "other"], 2, 1, allow_missing_keys=True)))
    samples = [loader({"image": str(tmp_path / name), "patient": "p"}) for name in ("a.png", "b.nii.gz")]
    batch = list_data_collate(samples)
    assert batch["image"].shape == (2, 1, 5, 7) and batch["patient"] == ["p", "p"]
    assert torch.equal(batch["image"][0], batch["image"][1])
    assert [Path(p).name for p in batch["image"].meta["filename_or_obj"]] == ["a.png", "b.nii.gz"]


def test_dicom_monochrome1_is_shown_inverted(shared_data: Path) -> None:
    folder = shared_data / "cxr" / "dicom"
    loader = LoadImageChecked(spatial_dims=2, in_channels=1)
    plain, inverted = (loader(folder / f"rsna_16d7f894{end}.dcm") for end in ("", "_tagged_monochrome1"))
    assert plain.shape == (1, 1024, 1024) and plain.meta["source_range"] == (0.0, 255.0)
    assert plain.std() > 10
    assert torch.equal(plain.as_tensor() + inverted.as_tensor(), torch.full_like(plain.as_tensor(), 255.0))


@pytest.mark.parametrize(("name", "bits"), [("RG1_J2KI.dcm", 15), ("RG3_J2KI.dcm", 10)])
def test_jpeg2000_dicom_against_another_decoder(shared_data: Path, name: str, bits: int) -> None:
    path = shared_data / "cxr" / "dicom" / name
    image = LoadImageChecked(spatial_dims=2)(path)
    try:
        stored = pydicom.dcmread(path).pixel_array
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        pytest.skip(f"pydicom has no JPEG 2000 decoder here: {error}")
    assert np.array_equal(image[0].numpy().T, 2.0**bits - 1 - stored)
    assert image.meta["source_range"] == (float(image.min()), float(image.max()))
    assert not [key for key in image.meta if "|" in str(key)]  # no DICOM tag, thus no patient's name
