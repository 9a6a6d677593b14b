# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomaly.transforms import LoadImageChecked
from monai_anomaly.visualize.planes import describe_slice, display_planes


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_shown_as_in_its_file(tmp_path: Path, channels: int) -> None:
    pixels = np.zeros((4, 7, 3), dtype=np.uint8)  # four rows, seven columns
    pixels[0, 6], pixels[3, 0] = (250, 10, 90), (40, 50, 60)
    stored = pixels if channels == 3 else pixels[..., 0]
    Image.fromarray(stored).save(tmp_path / "a.png")
    image = LoadImageChecked()(tmp_path / "a.png")
    plane = display_planes({"image": image})["image"]
    assert np.array_equal(plane, stored) and plane.flags["C_CONTIGUOUS"]


def test_of_two_channels_the_first_is_shown() -> None:
    image = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    assert np.array_equal(display_planes({"image": image})["image"], image[0].numpy().T)


def test_a_volume_is_cut_where_the_map_is_largest(tmp_path: Path) -> None:
    voxels = np.zeros((5, 6, 4), dtype=np.float32)  # x to the right, y to the front, z up
    voxels[4, 5, 2] = 9  # right and front
    voxels[0, 1, 2] = 4
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    image = LoadImageChecked(spatial_dims=3)(tmp_path / "a.nii.gz")
    anomaly_map = torch.zeros(1, 5, 6, 4)
    anomaly_map[..., 2] = 0.1
    anomaly_map[0, 0, 0, 1] = 2.0  # one bright voxel, but less mass than the third slice
    planes = display_planes({"image": image, "anomaly_map": anomaly_map, "label": (image > 0).float()})
    assert {plane.shape for plane in planes.values()} == {(6, 5)}
    assert planes["image"][0, 4] == 9, "front at the top, the larger x at the right"
    assert planes["image"][4, 0] == 4 and np.count_nonzero(planes["image"]) == 2
    assert np.array_equal(planes["label"] > 0, planes["image"] > 0)
    assert np.allclose(planes["anomaly_map"], 0.1)


def test_the_slice_shown_is_told() -> None:
    anomaly_map, label = torch.zeros(1, 5, 6, 4), torch.zeros(1, 5, 6, 4)
    anomaly_map[..., 2] = 0.1
    assert describe_slice({"anomaly_map": anomaly_map}) == "slice 3 of 4"
    assert describe_slice({"anomaly_map": anomaly_map, "label": label}) == "slice 3 of 4"
    label[0, 1, 1, 3] = 1
    assert describe_slice({"anomaly_map": anomaly_map, "label": label}) == "slice 3 of 4, annotated in others only"
    label[0, 1, 1, 2] = 1
    assert describe_slice({"anomaly_map": anomaly_map, "label": label}) == "slice 3 of 4"
    assert describe_slice({"anomaly_map": anomaly_map[..., 0], "label": label[..., 0]}) == ""


def test_other_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"all be \(C, H, W\) or all be \(C, H, W, D\), got \[1\] axes"):
        display_planes({"image": torch.zeros(1, 4)})
    with pytest.raises(ValueError, match=r"got \[2, 3\] axes"):
        display_planes({"image": torch.zeros(1, 4, 4), "anomaly_map": torch.zeros(1, 4, 4, 4)})
