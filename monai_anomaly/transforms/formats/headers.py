# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""MetaImage and NRRD: text headers whose pixels may lie in another file."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ...utils import check_user_file
from .limits import UnusableImageError, check_length, check_size, inflated_length

# a header is a few hundred bytes; one that is longer holds something else
_LONGEST_HEADER = 2**16
_META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR", "MET_ASCII_CHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT", "MET_LONG", "MET_ULONG"), 4),
    **dict.fromkeys(("MET_DOUBLE", "MET_LONG_LONG", "MET_ULONG_LONG"), 8),
}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
}
# its reader takes a colon, and the end of a line of old Macs, for a separator, too, and we might read another field
_META_LINE = re.compile(r"[\w|. \t-]{1,100}=[^\x00-\x08\x0a-\x1f]*")


@dataclass(frozen=True)
class PixelData:
    """Where the pixels of an image lie, and how many bytes there must be.

    Args:
        file: name in the header of the file that holds them; None: the file of the header itself.
        start: their first byte, where it is known.
        size: bytes of all pixels, decompressed.
        encoding: ``"raw"``, ``"zlib"``, or another one, which its reader checks by itself.
        packed: bytes of compressed pixels that the reader takes, None where they are not compressed, or it takes all.
    """

    file: str | None
    start: int
    size: int
    encoding: str
    packed: int | None = None


def check_meta_image(path: str) -> None:
    """Refuse a MetaImage whose pixels are too few, too many for the memory, or outside its folder."""
    _check_pixels(path, _read_meta(path))


def check_nrrd(path: str) -> None:
    """Refuse an NRRD file whose pixels are too few, too many for the memory, or outside its folder."""
    _check_pixels(path, _read_nrrd(path))


def detached_file(path: str) -> str | None:
    """Return the file that holds the pixels of a MetaImage or NRRD header, None where they are in the same file.

    Raises:
        UnusableImageError: where the header names a file outside its own folder, or several.
    """
    data = _read_nrrd(path) if path.lower().endswith((".nrrd", ".nhdr")) else _read_meta(path)
    return None if data.file is None else _inside_folder(path, data.file)


def _check_pixels(path: str, data: PixelData) -> None:
    check_size(path, data.size)
    file = path if data.file is None else _inside_folder(path, data.file)
    try:
        status = check_user_file(file, f"pixels of image {path} in", "copy this file along with the image")
    except ValueError as error:
        raise UnusableImageError(str(error)) from None
    where = "" if data.file is None else f" in {file}"
    if data.encoding == "raw":
        check_length(path, status.st_size - data.start, data.size, where)
    elif data.encoding == "zlib":
        with open(file, "rb") as stream:
            stream.seek(data.start)
            check_length(path, inflated_length(stream, data.size, packed=data.packed), data.size, where)


def _inside_folder(path: str, name: str) -> str:
    """Return the file a header names, if it lies in the folder of the header or below, links followed."""
    folder = os.path.dirname(os.path.abspath(path))
    file = os.path.join(folder, name)
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise UnusableImageError(
            f"image {path} takes its pixels from {name!r}, which lies outside its own folder: put this file beside the "
            "header, and its name without a folder into it"
        )
    return file


def _lines(path: str) -> list[bytes]:
    with open(path, "rb") as stream:
        return stream.read(_LONGEST_HEADER).split(b"\n")


def _read_meta(path: str) -> PixelData:
    fields: dict[str, str] = {}
    start = 0
    for line in _lines(path):
        start += len(line) + 1
        text = line.decode("latin-1").strip(" \t\r")
        key, _, value = (part.strip(" \t") for part in text.partition("="))
        if text and (key in fields or not _META_LINE.fullmatch(text)):
            raise UnusableImageError(
                f"image {path} has a header with the line {text[:80]!r}: write 'key = value', once"
            )
        fields[key] = value
        # the reader stops at this field; what looks like it and is not would let it read on past us
        if "elementdatafile" in line.lower().decode("latin-1"):
            break
    name = fields.get("ElementDataFile")
    numbers = [fields.get("DimSize", ""), fields.get("ElementNumberOfChannels", "1")]
    if not name or not all(re.fullmatch(r"\d+(\s+\d+)*", text) for text in numbers):
        raise UnusableImageError(
            f"image {path} has no MetaImage header with DimSize and ElementDataFile: export it again"
        )
    if name.split()[0] == "LIST" or "%" in name:
        raise _several_files(path)
    values = math.prod(int(number) for text in numbers for number in text.split())
    local = name.upper() == "LOCAL"
    binary = fields.get("BinaryData", "True")[:1] in "Tt1Yy"
    compressed = fields.get("CompressedData", "False")[:1] in "Tt1Yy"
    packed = _packed_size(path, fields) if compressed else None
    return PixelData(
        None if local else name,
        start if local else 0,
        values * _META_BYTES.get(fields.get("ElementType", "").removesuffix("_ARRAY"), 1),
        "zlib" if compressed else "raw" if binary else "text",
        packed,
    )


def _packed_size(path: str, fields: dict[str, str]) -> int:
    """What the reader takes of the compressed bytes; where that is too little, it leaves memory as it was."""
    text = fields.get("CompressedDataSize", "")
    if not text.isdecimal() or int(text) < 1:
        raise UnusableImageError(
            f"image {path} has CompressedDataSize {text!r}, which must count its compressed bytes: export it again"
        )
    return int(text)


def _read_nrrd(path: str) -> PixelData:
    fields: dict[str, str] = {}
    start = 0
    lines = _lines(path)
    for line in lines:
        start += len(line) + 1
        text = line.decode("latin-1").strip()
        if not text:
            break
        key, colon, value = text.partition(":")
        if colon and not text.startswith("#") and not value.startswith("="):
            fields.setdefault("".join(key.lower().split()), value.strip())
    if not lines[0].startswith(b"NRRD") or not re.fullmatch(r"\d+(\s+\d+)*", fields.get("sizes", "")):
        raise UnusableImageError(f"image {path} has no NRRD header with sizes: export it again")
    name = fields.get("datafile")
    if name is not None and (name.split()[:1] == ["LIST"] or "%" in name):
        raise _several_files(path)
    skips = any(fields.get(key, "0") != "0" for key in ("lineskip", "byteskip"))
    values = math.prod(map(int, fields["sizes"].split()))
    return PixelData(
        name,
        start if name is None else 0,
        values * _NRRD_BYTES.get(fields.get("type", "").lower(), 1),
        "raw" if fields.get("encoding", "").lower() == "raw" and not skips else "checked by its reader",
    )


def _several_files(path: str) -> UnusableImageError:
    return UnusableImageError(f"image {path} spreads its pixels over several files: save it as one file, such as .mha")
