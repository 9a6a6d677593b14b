# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_anomaly.data import datalist_shape, sample_dir


def written(folder: Path, *names: str) -> Path:
    """A datalist of images in its folder."""
    path = folder / "datalist.json"
    path.write_text(json.dumps({"name": "x", "training": [{"image": name} for name in names]}))
    return path


def save(path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    if path.suffix == ".png":
        Image.fromarray(values).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize(
    ("name", "shape", "channels", "axes"),
    [
        ("a.png", (8, 8), 1, 2),
        ("a.png", (8, 8, 3), 3, 2),
        ("a.nii.gz", (8, 8, 8), 1, 3),
        ("a.nii.gz", (8, 8, 1), 1, 2),
    ],
)
def test_the_first_image_says_what_the_network_must_take(
    name: str, shape: tuple[int, ...], channels: int, axes: int, tmp_path: Path
) -> None:
    save(tmp_path / name, shape)
    expected = {"in_channels": channels, "spatial_size": [32] * axes}
    assert datalist_shape(written(tmp_path, name), size=32) == expected
    assert datalist_shape(tmp_path, size=32) == datalist_shape(written(tmp_path, name), tmp_path, 32)


def test_files_that_cannot_be_read_are_left_to_the_audit(tmp_path: Path) -> None:
    save(tmp_path / "good.png", (8, 8, 3))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert datalist_shape(written(tmp_path, "none.png", "bad.png", "good.png"))["in_channels"] == 3
    usual = {"in_channels": 1, "spatial_size": [64, 64]}
    assert datalist_shape(written(tmp_path, "bad.png")) == usual
    assert datalist_shape(tmp_path / "nowhere.json") == usual
    (tmp_path / "odd.json").write_text('{"training": {"image": 3}, "testing": [3, {"image": 4}]}')
    assert datalist_shape(tmp_path / "odd.json") == usual


def test_the_sample_is_gray() -> None:
    assert datalist_shape(Path(sample_dir()) / "datalist.json") == {"in_channels": 1, "spatial_size": [64, 64]}
