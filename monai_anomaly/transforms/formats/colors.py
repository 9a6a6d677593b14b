# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What the colors of a DICOM file need: samples of each pixel, or a palette; GDCM takes both on trust."""

from __future__ import annotations

from typing import Any

from .limits import UnusableImageError

_PALETTE = "PALETTE COLOR"
_SAMPLES = {
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", _PALETTE), 1),
    **dict.fromkeys(("RGB", "HSV", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"), 3),
    **dict.fromkeys(("YBR_ICT", "YBR_RCT"), 3),
    **dict.fromkeys(("ARGB", "CMYK"), 4),
}


def check_colors(dataset: Any, path: str, meaning: str | None, samples: int) -> None:
    """Refuse a DICOM file whose samples do not fit what they mean, or whose palette is missing or too short.

    Args:
        dataset: its tags.
        path: of the file.
        meaning: its PhotometricInterpretation, None where it has none.
        samples: its SamplesPerPixel.

    Raises:
        UnusableImageError: naming file, tag and remedy.
    """
    if meaning is None:
        return
    if meaning not in _SAMPLES:
        raise UnusableImageError(
            f"image {path} has PhotometricInterpretation {meaning!r}, none of {', '.join(_SAMPLES)}: export it again"
        )
    if samples != _SAMPLES[meaning]:
        raise UnusableImageError(
            f"image {path} has PhotometricInterpretation {meaning} and SamplesPerPixel {samples}, which must be "
            f"{_SAMPLES[meaning]} for it: export it again"
        )
    if meaning == _PALETTE:
        for color in ("Red", "Green", "Blue"):
            _check_table(dataset, path, color)


def _check_table(dataset: Any, path: str, color: str) -> None:
    """Refuse a table that has fewer colors than it says; pixels beyond its end would be read from elsewhere."""
    name = f"{color}PaletteColorLookupTable"
    description, data = dataset.get(f"{name}Descriptor"), dataset.get(f"{name}Data")
    try:
        count, _, bits = map(int, description)
    except (TypeError, ValueError):
        count, bits = -1, 0
    if data is None or count < 0 or bits not in (8, 16):
        raise UnusableImageError(
            f"image {path} is of PALETTE COLOR without a right {name}Data and {name}Descriptor: save it with its "
            "palette, or in gray"
        )
    # 16 bits cannot say 65536, for which 0 stands; a table that was not stored as bytes is one of 16-bit numbers
    needed = (count or 2**16) * bits // 8
    have = len(data) if isinstance(data, bytes) else 2 * (len(data) if hasattr(data, "__len__") else 1)
    if have < needed:
        raise UnusableImageError(
            f"image {path} has {have} bytes of {name}Data, but its descriptor promises {needed}: save it with its "
            "palette, or in gray"
        )
