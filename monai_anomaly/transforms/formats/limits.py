# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import sys
import zlib
from typing import BinaryIO

LIMIT_VARIABLE = "MONAI_ANOMALY_MAX_IMAGE_BYTES"
_DEFAULT_LIMIT = 4 * 2**30
_CHUNK = 2**20


class UnusableImageError(ValueError):
    """An image file that says what it is and must not be used all the same; the text names it and the remedy."""


def max_image_bytes() -> int:
    """Return how many bytes the pixels of one file may take, decompressed: 4 GiB, or what the environment says."""
    text = os.environ.get(LIMIT_VARIABLE, str(_DEFAULT_LIMIT))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"the environment variable {LIMIT_VARIABLE} must be a number of bytes, got {text!r}")
    return int(text)


def check_size(path: str, size: int) -> None:
    """Refuse an image whose pixels would take more memory than one image may."""
    limit = max_image_bytes()
    if size > limit:
        raise UnusableImageError(
            f"image {path} would take {size} bytes in memory, more than {limit}: cut or downsample it, or set the "
            f"environment variable {LIMIT_VARIABLE} to a larger number"
        )


def check_length(path: str, have: int, needed: int, where: str = "") -> None:
    """Refuse pixel data that is shorter than the header promises: readers fill the rest with whatever is in memory."""
    if have < needed:
        raise UnusableImageError(
            f"image {path} holds {have} bytes of pixels{where}, but its header promises {needed}: it was cut off, or "
            "its header is wrong; export it again"
        )


def inflated_length(stream: BinaryIO, most: int, wbits: int = 47, packed: int | None = None) -> int:
    """Return how many bytes a zlib or gzip stream gives, counted up to ``most`` and never held together.

    Args:
        stream: at its first byte.
        most: count no further.
        wbits: of :func:`zlib.decompressobj`; default: zlib or gzip, whichever it is.
        packed: bytes of the stream to read; default: all.
    """
    inflater = zlib.decompressobj(wbits)
    count = 0
    left = sys.maxsize if packed is None else packed
    while count < most and not inflater.eof:
        raw = inflater.unconsumed_tail
        if not raw:
            raw = stream.read(min(_CHUNK, left))
            left -= len(raw)
        if not raw:
            break
        try:
            count += len(inflater.decompress(raw, _CHUNK))
        except zlib.error:
            break
    return count
