# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from monai_anomaly.visualize import encode_data_uri


def decode(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head in ("data:image/webp;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")).astype(float)


@pytest.mark.parametrize(("shape", "size", "expected"), [((300, 150), 100, (100, 50)), ((40, 64), 192, (40, 64))])
def test_size_and_orientation(shape: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    pixels[: shape[0] // 2, : shape[1] // 2] = (250, 20, 20)
    seen = decode(encode_data_uri(pixels, size))
    assert seen.shape == (*expected, 3)
    assert np.abs(seen[3, 3] - (250, 20, 20)).max() < 25 and seen[-3, 3].max() < 25 and seen[3, -3].max() < 25


def test_gray_and_repeatable() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    uri = encode_data_uri(ramp)
    assert uri == encode_data_uri(ramp)
    assert np.abs(decode(uri) - ramp[..., None]).mean() < 4
    assert decode(encode_data_uri(np.zeros((1000, 1), np.uint8), 8)).shape == (8, 1, 3)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((4, 4)), {}, r"uint8, got \(4, 4\) float64"),
        (np.zeros((4, 4, 2), np.uint8), {}, r"got \(4, 4, 2\) uint8"),
        (np.zeros(4, np.uint8), {}, r"got \(4,\) uint8"),
        (np.zeros((4, 4), np.uint8), {"size": 7}, "got 7 and 82"),
        (np.zeros((4, 4), np.uint8), {"quality": 0}, "got 192 and 0"),
    ],
)
def test_refuses(pixels: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_data_uri(pixels, **options)
