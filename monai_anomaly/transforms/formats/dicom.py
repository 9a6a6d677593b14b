# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from typing import Any

from monai.utils import optional_import

from .codestream import codestream_size
from .colors import check_colors
from .limits import UnusableImageError, check_length, check_size, inflated_length, max_image_bytes

pydicom, HAS_PYDICOM = optional_import("pydicom")
encaps, _ = optional_import("pydicom.encaps")
uids, _ = optional_import("pydicom.uid")
itk, _ = optional_import("itk")

_MEDIA_DIRECTORY = "DICOMDIR"  # a table of contents
_IN_MEMORY = 2**16  # longer values are left in the file
_BITS = (1, 8, 12, 16, 32, 64)
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def check_dicom(path: str) -> int:
    """Refuse a DICOM file whose pixel data does not fit its tags, or whose rescaling is no scaling.

    Returns:
        Bytes of its pixels, decompressed.

    Raises:
        UnusableImageError: naming file, tag and remedy.
        Exception: of pydicom, where it is no DICOM file.
    """
    dataset = _read(path)
    if "PixelData" not in dataset:
        raise UnusableImageError(f"image {path} holds no pixel data, or was cut off before it: export it again")
    _check_rescaling(dataset, path)
    rows, columns, samples, frames, bits = _layout(dataset, path)
    size = math.ceil(rows * columns * samples * frames * bits / 8)
    check_size(path, size)
    check_colors(dataset, path, _text(dataset, "PhotometricInterpretation"), samples)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_frames(dataset, path, rows, columns, frames)
    else:
        _check_native(dataset, path, size, frames)
    return size


def check_series(folder: str) -> None:
    """Refuse a folder that holds what is no ordinary file or folder, several DICOM series, or a bad DICOM file.

    Its reader passes over files that it cannot read, and so over slices that were cut off.
    """
    size = 0
    for entry in os.scandir(folder):
        mode = entry.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UnusableImageError(f"folder {folder} holds {entry.name!r}, which is no ordinary file: remove it")
        if stat.S_ISREG(mode) and entry.name != _MEDIA_DIRECTORY and is_dicom_file(entry.path):
            size += check_dicom(entry.path)
    check_size(folder, size)
    names = itk.GDCMSeriesFileNames.New()  # set up as MONAI's reader does, which takes the first series it finds
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(folder)
    if (count := len(names.GetSeriesUIDs())) > 1:
        raise UnusableImageError(
            f"folder {folder} holds {count} DICOM series: put each into a folder of its own, or name one file"
        )


def is_dicom_file(path: str) -> bool:
    """Return whether a file is DICOM by its suffix or by the marker inside."""
    if path.lower().endswith((".dcm", ".dicom")):
        return True
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _read(path: str) -> Any:
    if not HAS_PYDICOM:
        raise UnusableImageError(f"image {path} cannot be checked without pydicom: pip install pydicom")
    with open(path, "rb") as stream:
        pydicom.filereader.read_preamble(stream, True)
        meta = pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        deflated = meta.get("TransferSyntaxUID") == uids.DeflatedExplicitVRLittleEndian
        if deflated:  # pydicom and GDCM would inflate all of it, however much that is
            check_size(path, inflated_length(stream, max_image_bytes() + 1, -15))
    dataset = pydicom.dcmread(path, defer_size=None if deflated else _IN_MEMORY, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        if dataset.preamble is None and "PixelData" not in dataset:
            raise pydicom.errors.InvalidDicomError("no DICOM file")
        dataset.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian
    return dataset


def _layout(dataset: Any, path: str) -> tuple[int, int, int, int, int]:
    """Return rows, columns, samples a pixel, frames and bits of a sample."""
    found = []
    for name, default in (
        ("Rows", ""),
        ("Columns", ""),
        ("SamplesPerPixel", "1"),
        ("NumberOfFrames", "1"),
        ("BitsAllocated", ""),
    ):
        text = _text(dataset, name) or default
        if not text.isdecimal() or int(text) < 1:
            raise UnusableImageError(f"image {path} has {name} {text!r}, which must be 1 or more: export it again")
        found.append(int(text))
    bits, stored = found[-1], _text(dataset, "BitsStored") or str(found[-1])
    if bits not in _BITS or not stored.isdecimal() or not 1 <= int(stored) <= bits:
        raise UnusableImageError(f"image {path} has BitsAllocated {bits} and BitsStored {stored}: export it again")
    return found[0], found[1], found[2], found[3], bits


def _check_native(dataset: Any, path: str, size: int, frames: int) -> None:
    # pydicom 2 reads what is asked for
    element = dataset.get_item("PixelData", **({} if _is_pydicom_2() else {"keep_deferred": True}))
    if element.value is None:  # left in the file: the length is what the element says, not what there is
        have = min(int(element.length), os.path.getsize(path) - int(element.value_tell))
    else:
        have = len(element.value)
    # two pixels share their colors in this form
    needed = math.ceil(size * 2 / 3) if "422" in (_text(dataset, "PhotometricInterpretation") or "") else size
    check_length(path, have, needed)
    spare = have - needed
    if spare > 1 and spare >= needed // frames:  # a byte of padding is usual, a whole frame is not
        raise UnusableImageError(
            f"image {path} holds {have} bytes of pixels, but its tags speak of {needed}: NumberOfFrames, Rows, Columns "
            "or BitsAllocated is wrong, and the rest would be left out; export it again"
        )


def _check_frames(dataset: Any, path: str, rows: int, columns: int, frames: int) -> None:
    parts = _fragments(dataset, frames)
    # a single frame may lie in several fragments; more than one beginning are more than one frame
    beginnings = sum(codestream_size(part) is not None for part in parts[0]) if len(parts) == 1 else 0
    if max(len(parts), beginnings) != frames:
        raise UnusableImageError(
            f"image {path} holds {max(len(parts), beginnings)} compressed frames, but NumberOfFrames says {frames}: "
            "export it again"
        )
    for number, frame in enumerate(parts):
        size = codestream_size(b"".join(frame))
        if size not in (None, (rows, columns)):
            raise UnusableImageError(
                f"image {path} has Rows and Columns {(rows, columns)}, but its compressed frame {number} is of {size}: "
                "export it again"
            )


def _is_pydicom_2() -> bool:
    """MONAI Label needs this version."""
    return bool(pydicom.__version_info__[0] == "2")


def _fragments(dataset: Any, frames: int) -> list[Any]:
    """Return the fragments of each compressed frame."""
    if _is_pydicom_2():
        return list(encaps.generate_pixel_data(dataset.PixelData, frames))
    offsets = [dataset.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    return list(
        encaps.generate_fragmented_frames(
            dataset.PixelData, number_of_frames=frames, extended_offsets=None if None in offsets else tuple(offsets)
        )
    )


def _check_rescaling(dataset: Any, path: str) -> None:
    """GDCM takes a slope of zero, or one that is no number, for 1, and that of the first frame for all."""
    pairs = set()
    for part in (dataset, *_transformations(dataset)):
        slope, intercept = (_text(part, f"Rescale{name}") for name in ("Slope", "Intercept"))
        for name, text, zero in (("RescaleSlope", slope, False), ("RescaleIntercept", intercept, True)):
            if text is not None and not _is_number(text, zero):
                raise UnusableImageError(
                    f"image {path} has {name} {text!r}, which must be a finite number"
                    + ("" if zero else " other than 0")
                    + ": correct the tag"
                )
        if part is not dataset and slope is not None:
            pairs.add((float(slope), float(intercept or 0)))
    if len(pairs) > 1:
        raise UnusableImageError(
            f"image {path} rescales its frames differently, {len(pairs)} ways: save them with one RescaleSlope"
        )


def _transformations(dataset: Any) -> Iterator[Any]:
    for groups in _FUNCTIONAL_GROUPS:
        for group in dataset.get(groups) or ():
            yield from group.get("PixelValueTransformationSequence") or ()


def _is_number(text: str, zero: bool) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and (zero or value != 0)


def _text(dataset: Any, keyword: str) -> str | None:
    """Return a value as it stands, before pydicom makes a number of it; None where the tag is missing or empty."""
    element = dataset.get_item(keyword)
    value = None if element is None else element.value
    if value is None or len(value if isinstance(value, bytes) else str(value)) == 0:
        return None
    if isinstance(value, bytes) and pydicom.datadict.dictionary_VR(keyword) != "US":
        return value.decode("ascii", "replace").strip(" \0")
    return str(dataset[keyword].value).strip()
