# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dicom_case import PIXELS, save_dicom
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from monai_anomaly.transforms import LoadImageChecked

EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def _compressed(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((PIXELS // 16).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


JPEG, JPEG2000 = _compressed("JPEG", quality=95), _compressed("JPEG2000", no_jp2=True)
JPEG_TAGS = {"syntax": JPEGBaseline8Bit, **EIGHT}
COLOR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + reason):
        LoadImageChecked()(path)


@pytest.mark.parametrize(
    ("tags", "promised"),
    [
        ({"Rows": 320}, 15360),
        ({"Columns": 25}, 1600),
        ({"NumberOfFrames": 4}, 6144),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, 3072),
        (COLOR, 4608),
        ({"Rows": 320, "syntax": ImplicitVRLittleEndian}, 15360),
        ({"Rows": 320, "syntax": DeflatedExplicitVRLittleEndian}, 15360),
        ({"Rows": 320, "syntax": ExplicitVRBigEndian}, 15360),
    ],
)
def test_tags_that_promise_more_than_there_is(tmp_path: Path, tags: dict[str, Any], promised: int) -> None:
    _refused(save_dicom(tmp_path / "a.dcm", **tags), f"holds 1536 bytes of pixels, but its header promises {promised}")


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    whole = save_dicom(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-500])
    _refused(tmp_path / "cut.dcm", "holds 1036 bytes of pixels, but its header promises 1536")
    (tmp_path / "cut_before.dcm").write_bytes(whole[:-1600])
    _refused(tmp_path / "cut_before.dcm", "holds no pixel data, or was cut off")


@pytest.mark.parametrize(
    "tags",
    [{}, {"syntax": ImplicitVRLittleEndian}, {"syntax": DeflatedExplicitVRLittleEndian}, {"syntax": RLELossless}],
)
def test_right_files_are_read_as_before(tmp_path: Path, tags: dict[str, Any]) -> None:
    syntax = tags.get("syntax")
    path = save_dicom(tmp_path / "a.dcm", **({} if syntax == RLELossless else tags))
    if syntax == RLELossless:
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    image = LoadImageChecked(spatial_dims=2)(path)
    assert torch.equal(image.as_tensor()[0], torch.from_numpy(PIXELS.T.astype(np.float32)))


def test_frames_and_padding(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "two.dcm", np.stack([PIXELS, PIXELS + 1]).tobytes(), NumberOfFrames=2)
    assert LoadImageChecked(spatial_dims=3)(path).shape == (1, 24, 32, 2)
    odd = save_dicom(tmp_path / "odd.dcm", bytes(63) + b"\0", Rows=7, Columns=9, **EIGHT)
    assert LoadImageChecked(spatial_dims=2)(odd).shape == (1, 9, 7)
    _refused(save_dicom(tmp_path / "hidden.dcm", PIXELS.tobytes() * 3), "the rest would be left out")


@pytest.mark.parametrize(
    ("tag", "value"), [("Rows", 0), ("BitsAllocated", 7), ("BitsStored", 17), ("SamplesPerPixel", 0)]
)
def test_tags_out_of_range(tmp_path: Path, tag: str, value: int) -> None:
    _refused(save_dicom(tmp_path / "a.dcm", **{tag: value}), f"{tag} '?{value}'?.*export it again")


@pytest.mark.parametrize("slope", [b"0   ", b"abc ", b"nan ", b"inf ", b"1\\2 ", b"    "])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_slope_that_is_none(tmp_path: Path, slope: bytes, implicit: bool) -> None:
    syntax = {"syntax": ImplicitVRLittleEndian} if implicit else {}
    path = save_dicom(tmp_path / "a.dcm", RescaleSlope="8.25", RescaleIntercept=0, **syntax)
    assert float(LoadImageChecked()(path).max()) == 8.25 * float(PIXELS.max())
    written = path.read_bytes()
    assert written.count(b"8.25") == 1
    path.write_bytes(written.replace(b"8.25", slope))
    _refused(
        path, f"RescaleSlope {re.escape(repr(slope.decode().strip()))}, which must be a finite number other than 0"
    )


def test_frames_with_different_slopes(tmp_path: Path) -> None:
    groups = []
    for slope in (1, 2):
        group, values = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, 0
        group.PixelValueTransformationSequence = [values]
        groups.append(group)
    path = save_dicom(
        tmp_path / "a.dcm", PIXELS.tobytes() * 2, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups
    )
    _refused(path, "rescales its frames differently, 2 ways")


@pytest.mark.parametrize(
    ("frames", "tags", "reason"),
    [
        ([JPEG], {"NumberOfFrames": 3, **JPEG_TAGS}, "holds 1 compressed frames, but NumberOfFrames says 3"),
        ([JPEG, JPEG], JPEG_TAGS, "holds 2 compressed frames, but NumberOfFrames says 1"),
        ([JPEG], {"Rows": 320, **JPEG_TAGS}, r"\(320, 24\), but its compressed frame 0 is of \(32, 24\)"),
        ([JPEG2000], {**EIGHT, "Columns": 99, "syntax": JPEG2000Lossless}, r"\(32, 99\), but .* of \(32, 24\)"),
        ([JPEG[: len(JPEG) // 2]], JPEG_TAGS, "cannot be read"),
        ([JPEG2000[:200]], {**EIGHT, "syntax": JPEG2000Lossless}, "cannot be read"),
    ],
)
def test_compressed_frames_that_contradict_their_tags(
    tmp_path: Path, frames: list[bytes], tags: dict[str, Any], reason: str
) -> None:
    _refused(save_dicom(tmp_path / "a.dcm", encapsulate(frames), **tags), reason)


def test_compressed_frames_that_fit(tmp_path: Path) -> None:
    for syntax, code in ((JPEGBaseline8Bit, JPEG), (JPEG2000Lossless, JPEG2000)):
        path = save_dicom(tmp_path / "a.dcm", encapsulate([code], fragments_per_frame=2), syntax, **EIGHT)
        assert LoadImageChecked(spatial_dims=2)(path).shape == (1, 24, 32)
    path = save_dicom(tmp_path / "b.dcm", encapsulate([JPEG, JPEG]), NumberOfFrames=2, **JPEG_TAGS)
    assert LoadImageChecked(spatial_dims=3)(path).shape == (1, 24, 32, 2)


def test_a_deflated_file_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_dicom(tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian)
    head = path.read_bytes()[: 132 + 12 + dcmread(path).file_meta.FileMetaInformationGroupLength]
    deflater = zlib.compressobj(wbits=-15)
    path.write_bytes(head + deflater.compress(bytes(2**23)) + deflater.flush())
    monkeypatch.setenv("MONAI_ANOMALY_MAX_IMAGE_BYTES", str(2**22))
    _refused(path, "more than 4194304: .*MONAI_ANOMALY_MAX_IMAGE_BYTES")


def test_images_larger_than_the_memory(tmp_path: Path) -> None:
    code = bytearray(JPEG2000)
    code[8:16] = b"\xff\xff\0\0" * 2  # what its decoder would make room for
    tags = {"Rows": 65535, "Columns": 65535, "NumberOfFrames": 9, **EIGHT, "syntax": JPEG2000Lossless}
    _refused(save_dicom(tmp_path / "tags.dcm", encapsulate([JPEG2000]), **tags), "would take 38653526025 bytes")
    path = save_dicom(tmp_path / "code.dcm", encapsulate([bytes(code)]), JPEG2000Lossless, **EIGHT)
    _refused(path, "but its compressed frame 0 is of")


def _series(folder: Path, uid: str, name: str, slices: int = 3) -> None:
    for z in range(slices):
        place = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        numbers = {"SeriesInstanceUID": uid, "InstanceNumber": z + 1, "PixelSpacing": [1, 1]}
        save_dicom(folder / f"{name}{z}.dcm", (PIXELS + z).tobytes(), **place, **numbers)


def test_a_folder_holds_one_series_of_right_files(tmp_path: Path) -> None:
    _series(tmp_path, generate_uid(), "a")
    (tmp_path / "notes.txt").write_text("three slices")
    assert LoadImageChecked(spatial_dims=3)(tmp_path).shape == (1, 24, 32, 3)
    last = (tmp_path / "a2.dcm").read_bytes()
    (tmp_path / "a2.dcm").write_bytes(last[:-100])
    with pytest.raises(ValueError, match=r"a2\.dcm holds 1436 bytes"):
        LoadImageChecked()(tmp_path)
    (tmp_path / "a2.dcm").write_bytes(last)
    os.mkfifo(tmp_path / "pipe")
    _refused(tmp_path, "holds 'pipe', which is no ordinary file")
    (tmp_path / "pipe").unlink()
    _series(tmp_path, generate_uid(), "b")
    _refused(tmp_path, "holds 2 DICOM series: put each into a folder of its own")
