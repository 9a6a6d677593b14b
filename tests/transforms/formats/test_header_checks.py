# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

import itk
import numpy as np
import pytest
import torch

from monai_anomaly.transforms import LoadImageChecked
from monai_anomaly.transforms.formats import companion_files

VOXELS = np.random.default_rng(0).integers(0, 4000, (4, 5, 6)).astype(np.int16)
RAW = VOXELS.tobytes()


def _meta(file: str = "LOCAL", more: str = "", size: str = "6 5 4") -> bytes:
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{more}DimSize = {size}\n"
        f"ElementType = MET_SHORT\nElementDataFile = {file}\n"
    ).encode()


def _nrrd(more: str = "", encoding: str = "raw", size: str = "6 5 4") -> bytes:
    return (
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: {size}\nendian: little\nencoding: {encoding}\n{more}\n".encode()
    )


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + reason):
        LoadImageChecked()(path)


_COMPRESSED = "CompressedData = True\n"
_SIZE = f"CompressedDataSize = {len(zlib.compress(RAW))}\n"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (_COMPRESSED, "has CompressedDataSize ''"),
        (_COMPRESSED + "CompressedDataSize = 0\n", "has CompressedDataSize '0'"),
        (_COMPRESSED + "CompressedDataSize = 1e2\n", "has CompressedDataSize '1e2'"),
        (_COMPRESSED + "compresseddatasize = 100\n", "has CompressedDataSize ''"),
        (_COMPRESSED + _SIZE + "CompressedDataSize = 100\n", "the line 'CompressedDataSize = 100'"),
        (_COMPRESSED + _SIZE + "CompressedDataSize: 100\n", "the line 'CompressedDataSize: 100'"),
        (_COMPRESSED + _SIZE + "a = b\rCompressedDataSize = 100\n", "the line 'a = b"),
        (_COMPRESSED + "CompressedDataSize\xa0= 251\n", "the line 'CompressedDataSize"),
        ("CompressedData: True\n", "the line 'CompressedData: True'"),
        ("CompressedData: True = \n", "the line 'CompressedData: True ='"),
    ],
)
def test_meta_images_whose_compressed_size_is_not_told(tmp_path: Path, more: str, reason: str) -> None:
    (tmp_path / "a.mha").write_bytes(_meta(more=more) + zlib.compress(RAW).ljust(300, b"x"))
    _refused(tmp_path / "a.mha", reason)
    (tmp_path / "a.mha").write_bytes(
        _meta(more=f"0008|0032 = 10:11\na b\t= Ä\r\n{_COMPRESSED}{_SIZE}") + zlib.compress(RAW)
    )
    LoadImageChecked(spatial_dims=3)(tmp_path / "a.mha")


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
def test_right_files_are_read(tmp_path: Path, suffix: str, compressed: bool) -> None:
    itk.imwrite(itk.image_from_array(VOXELS), str(tmp_path / f"a.{suffix}"), compression=compressed)
    image = LoadImageChecked(spatial_dims=3)(tmp_path / f"a.{suffix}")
    assert torch.equal(image.as_tensor()[0], torch.from_numpy(VOXELS.T.astype(np.float32)))


@pytest.mark.parametrize(
    "content",
    [
        _meta() + RAW[:-2],
        _meta(size="6 5 400") + RAW,
        _meta(more=_COMPRESSED + "CompressedDataSize = 999\n") + zlib.compress(RAW[:-2]),
        _meta(more=_COMPRESSED + "CompressedDataSize = 50\n") + bytes(50),
        _meta(more=_COMPRESSED + "CompressedDataSize = 999\n") + zlib.compress(RAW)[:-40],
        _meta(more=_COMPRESSED + "CompressedDataSize = 100\n") + zlib.compress(RAW),
    ],
)
def test_meta_images_shorter_than_their_header_says(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mha").write_bytes(content)
    _refused(tmp_path / "a.mha", "bytes of pixels, but its header promises (240|24000)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_nrrd() + RAW[:-2], "holds 238 bytes of pixels, but its header promises 240"),
        (_nrrd(encoding="gzip") + zlib.compress(RAW[:-2], wbits=31), "cannot be read"),
        (_nrrd(encoding="ascii") + b"1 2 3", "cannot be read"),
        (_nrrd(encoding="hex") + RAW[:-2].hex().encode(), "cannot be read"),
    ],
)
def test_nrrd_files_shorter_than_their_header_says(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.nrrd").write_bytes(content)
    _refused(tmp_path / "a.nrrd", reason)


@pytest.fixture(params=["absolute", "above", "link", "link to a folder"])
def outside(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What a header in the folder ``images`` may call a file that does not lie there."""
    images, secret = tmp_path / "images", tmp_path / "secret.raw"
    images.mkdir()
    secret.write_bytes(RAW)
    (images / "link.raw").symlink_to(secret)
    (images / "folder").symlink_to(tmp_path)
    names = {"absolute": str(secret), "above": "../secret.raw", "link": "link.raw"}
    return names.get(request.param, "folder/secret.raw")


def test_pixels_outside_the_folder_are_never_read(tmp_path: Path, outside: str) -> None:
    images = tmp_path / "images"
    (images / "a.mhd").write_bytes(_meta(outside))
    (images / "b.mha").write_bytes(_meta(outside))
    for name, field in (("c.nrrd", "data file"), ("d.nhdr", "datafile"), ("e.nrrd", "Data File")):
        (images / name).write_bytes(_nrrd(f"{field}: {outside}\n"))
    for path in sorted(images.glob("?.*")):
        _refused(path, f"takes its pixels from {re.escape(repr(outside))}, which lies outside its own folder")
        assert companion_files(str(path)) == []


def test_pixels_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.raw").write_bytes(RAW)
    (tmp_path / "a.mhd").write_bytes(_meta("raw/a.raw"))
    (tmp_path / "a.nhdr").write_bytes(_nrrd("data file: raw/../raw/a.raw\n"))
    for path in (tmp_path / "a.mhd", tmp_path / "a.nhdr"):
        assert LoadImageChecked(spatial_dims=3)(path).shape == (1, 6, 5, 4)
        (file,) = companion_files(str(path))
        assert os.path.samefile(file, tmp_path / "raw" / "a.raw")
    (tmp_path / "raw" / "a.raw").write_bytes(RAW[:-1])
    _refused(tmp_path / "a.mhd", "holds 239 bytes of pixels in .*a.raw, but its header promises 240")
    (tmp_path / "raw" / "a.raw").unlink()
    with pytest.raises(ValueError, match=r"pixels of image .*a\.mhd in .*a\.raw does not exist: copy this file"):
        LoadImageChecked()(tmp_path / "a.mhd")
    os.mkfifo(tmp_path / "raw" / "a.raw")
    with pytest.raises(ValueError, match=r"a\.raw is no ordinary file"):
        LoadImageChecked()(tmp_path / "a.mhd")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mhd", _meta("LIST\na.raw"), "spreads its pixels over several files"),
        ("a.mhd", _meta("LIST 2\na.raw\nb.raw"), "spreads its pixels over several files"),
        ("a.mhd", _meta("a%d.raw 1 4 1"), "spreads its pixels over several files"),
        ("a.nrrd", _nrrd("data file: LIST\na.raw"), "spreads its pixels over several files"),
        ("a.mha", b"Comment = x\n" + _nrrd(), "a header with the line 'NRRD0004'"),
        ("a.mha", b"Comment = ElementDataFile = LOCAL\n" + _meta("/etc/hostname"), "no MetaImage header"),
        ("a.mha", b"elementdatafile = LOCAL\n" + _meta("/etc/hostname"), "no MetaImage header"),
        ("a.nrrd", _meta() + RAW, "no NRRD header"),
        ("a.mha", _meta(size="60000 60000 9") + RAW, "would take 64800000000 bytes.*MONAI_ANOMALY_MAX_IMAGE_BYTES"),
        ("a.nrrd", _nrrd(size="60000 60000 9"), "would take 64800000000 bytes"),
        ("a.hdr", _meta() + RAW, "cannot be read"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    _refused(tmp_path / name, reason)


def test_more_axes_and_complex_values(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(_meta(size="3 2 5 2 2").replace(b"NDims = 3", b"NDims = 5") + RAW)
    _refused(tmp_path / "a.mha", "two or three are allowed|cannot be read")
    values = np.arange(240, dtype=np.float32).tobytes()
    header = _nrrd("kinds: complex domain domain domain\n", size="2 6 5 4").replace(b"short", b"float")
    (tmp_path / "b.nrrd").write_bytes(header.replace(b"dimension: 3", b"dimension: 4") + values)
    _refused(tmp_path / "b.nrrd", "complex values|cannot be read")
