# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

Sections = dict[str, list[dict[str, Any]]]


def picture(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 48)), 2)
    return (128 + 90 * noise / np.abs(noise).max()).astype(np.uint8)


def save(folder: Path, name: str, values: np.ndarray) -> str:
    Image.fromarray(values).save(folder / name)
    return name


def mask(on: bool, size: int = 48) -> np.ndarray:
    values = np.zeros((size, size), np.uint8)
    values[10:20, 10:20] = 255 * on
    return values


def codes(findings: list[dict[str, str]]) -> set[str]:
    return {found["code"] for found in findings}
