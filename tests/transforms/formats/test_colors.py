# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_case import PIXELS, save_dicom

from monai_anomaly.transforms import LoadImageChecked

GRAY = (PIXELS % 4).astype(np.uint8).tobytes()
DESCRIPTION = [4, 0, 16]
TABLE = np.array([0, 20000, 40000, 65535], np.uint16).tobytes()
BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def palette(**other: Any) -> dict[str, Any]:
    """Tags of an image with four colors."""
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR", **BITS}
    for color in ("Red", "Green", "Blue"):
        tags[f"{color}PaletteColorLookupTableDescriptor"] = DESCRIPTION
        tags[f"{color}PaletteColorLookupTableData"] = TABLE
    return {name: value for name, value in {**tags, **other}.items() if value is not None}


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + reason):
        LoadImageChecked()(path)


def test_a_palette_of_the_right_size_is_read(tmp_path: Path) -> None:
    image = LoadImageChecked()(save_dicom(tmp_path / "a.dcm", GRAY, **palette()))
    assert image.shape[0] == 3


@pytest.mark.parametrize("color", ["Red", "Green", "Blue"])
@pytest.mark.parametrize("part", ["Data", "Descriptor"])
def test_a_palette_that_is_not_there(tmp_path: Path, color: str, part: str) -> None:
    name = f"{color}PaletteColorLookupTable{part}"
    _refused(save_dicom(tmp_path / "a.dcm", GRAY, **palette(**{name: None})), f"PALETTE COLOR without a right {color}")


@pytest.mark.parametrize("description", [[0, 0, 16], [5, 0, 16], [4, 0, 7], [65535, 0, 8]])
def test_a_palette_shorter_than_it_says(tmp_path: Path, description: list[int]) -> None:
    tags = palette(GreenPaletteColorLookupTableDescriptor=description)
    _refused(save_dicom(tmp_path / "a.dcm", GRAY, **tags), "GreenPaletteColorLookupTableD")


@pytest.mark.parametrize(
    ("meaning", "samples", "needed"),
    [
        ("RGB", 1, 3),
        ("YBR_FULL", 1, 3),
        ("YBR_FULL_422", 1, 3),
        ("MONOCHROME2", 3, 1),
        ("MONOCHROME1", 3, 1),
        ("PALETTE COLOR", 3, 1),
    ],
)
def test_samples_that_do_not_fit_their_meaning(tmp_path: Path, meaning: str, samples: int, needed: int) -> None:
    tags = {**BITS, "PhotometricInterpretation": meaning, "SamplesPerPixel": samples, "PlanarConfiguration": 0}
    path = save_dicom(tmp_path / "a.dcm", GRAY * samples, **tags)
    _refused(path, f"PhotometricInterpretation {meaning} and SamplesPerPixel {samples}, which must be {needed}")


def test_an_unknown_meaning(tmp_path: Path) -> None:
    _refused(save_dicom(tmp_path / "a.dcm", GRAY, **BITS, PhotometricInterpretation="X"), "'X', none of MONOCHROME1")


def test_colors_are_read(tmp_path: Path) -> None:
    tags = {**BITS, "PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    assert LoadImageChecked()(save_dicom(tmp_path / "a.dcm", GRAY * 3, **tags)).shape[0] == 3
