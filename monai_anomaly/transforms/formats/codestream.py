# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import struct

_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # the last one is that of JPEG-LS
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def codestream_size(code: bytes) -> tuple[int, int] | None:
    """Return rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream states, None where it states none."""
    if code[:4] == b"\xff\x4f\xff\x51" and len(code) >= 24:  # JPEG 2000: the size stands in its first segment
        right, bottom, left, top = struct.unpack(">4I", code[8:24])
        return bottom - top, right - left
    at = 2 if code[:2] == b"\xff\xd8" else len(code)
    while at + 9 <= len(code) and code[at] == 0xFF:
        marker = code[at + 1]
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack(">2H", code[at + 5 : at + 9])
            return rows, columns
        # a marker may be led by any number of fill bytes
        at += (
            1
            if marker == 0xFF
            else 2
            if marker in _WITHOUT_LENGTH
            else 2 + struct.unpack(">H", code[at + 2 : at + 4])[0]
        )
    return None
