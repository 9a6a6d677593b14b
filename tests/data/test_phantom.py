# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from monai_anomaly.data import load_datalist, make_phantom, validate_datalist
from monai_anomaly.data.phantom import PHANTOM_AFFINE
from monai_anomaly.transforms import LoadImageCheckedd, PrepareLabeld, ScaleSourceRanged

COUNTS = {"num_training": 3, "num_unlabeled": 2, "num_validation": 2, "num_testing": 8}


def load(item: dict[str, Any], dims: int) -> dict[str, Any]:
    for step in (LoadImageCheckedd("image", dims, 1), PrepareLabeld(), ScaleSourceRanged("image")):
        item = step(item)
    return item


@pytest.mark.parametrize(
    ("dims", "size", "shape"), [(2, 48, (48, 48)), (2, (40, 32), (40, 32)), (3, (20, 24, 16), (20, 24, 16))]
)
def test_lesions_are_where_the_mask_says(tmp_path: Path, dims: int, size: Any, shape: tuple[int, ...]) -> None:
    path = make_phantom(tmp_path, dims, size, **COUNTS)
    assert validate_datalist(path) == dict(
        zip(("training", "unlabeled", "validation", "testing"), (3, 2, 2, 8), strict=True)
    )
    samples = [load(item, dims) for item in load_datalist(path, "testing")]
    assert [s["target"] for s in samples] == [0, 1] * 4
    for sample in samples:
        image, label = sample["image"].as_tensor(), sample["label"].as_tensor()
        assert image.shape == label.shape == (1, *shape)
        assert image.min() >= -1 and image.max() <= 1 and image.std() > 0.1
        assert bool(label.any()) == bool(sample["target"])
        if sample["target"]:
            mask = label[0].numpy() > 0
            ring = binary_dilation(mask, iterations=2) & ~binary_dilation(mask)
            assert abs(float(image[0][mask].mean() - image[0][ring].mean())) > 0.2
            assert 0.002 < label.mean() < 0.3
    if dims == 3:
        assert np.allclose(samples[1]["image"].affine.numpy(), PHANTOM_AFFINE, atol=1e-5)
        assert np.linalg.det(PHANTOM_AFFINE[:3, :3]) < 0
    assert all("target" not in item for item in load_datalist(path, "unlabeled"))


def test_same_arguments_same_files(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> list[bytes]:
        make_phantom(tmp_path / name, size=24, seed=seed, **COUNTS)
        return [p.read_bytes() for p in sorted((tmp_path / name).rglob("*.png"))]

    assert content("a", 3) == content("b", 3) != content("c", 4)
    assert len(set(content("a", 3))) == len(content("a", 3))


def test_bad_arguments(tmp_path: Path) -> None:
    for settings, reason in (
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"size": 8}, "at least 16, got 8"),
        ({"size": (32, 32, 32)}, "size must be one or 2 numbers"),
        ({"num_testing": -1}, "must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=reason):
            make_phantom(tmp_path, **settings)  # type: ignore[arg-type]
