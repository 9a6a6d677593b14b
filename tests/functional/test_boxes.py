# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from monai_anomaly.functional.boxes import box_points, crop_boxes, inside_boxes, linear_index

CPU = torch.device("cpu")


def mirrored(index: int, length: int) -> int:
    """Walk from voxel 0 to ``index``, turning at both ends; the voxel at an end is visited once."""
    place, step = 0, 1
    for _ in range(abs(index)):  # a reflection at 0 makes -n the same as n
        if not 0 <= place + step < length:
            step = -step
        if length > 1:
            place += step
    return place


@pytest.mark.parametrize(
    ("shape", "size"),
    [((7, 5), (3, 4)), ((4, 1), (2, 3)), ((2, 3), (9, 8)), ((4, 5, 3), (2, 6, 3)), ((1, 2, 2), (1, 1, 5))],
)
def test_boxes_hold_the_mirrored_image(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    rng = np.random.RandomState(0)
    images = torch.from_numpy(rng.rand(3, 2, *shape))
    corners = rng.randint(-12, 12, (8, len(shape)))
    corners[0] = 0
    rows = rng.randint(0, 3, 8).tolist()
    boxes = crop_boxes(images, rows, corners, size)
    assert boxes.shape == (8, 2, *size)
    for box, row, corner in zip(boxes, rows, corners, strict=True):
        for local in product(*map(range, size)):
            place = [mirrored(int(c) + i, n) for c, i, n in zip(corner, local, shape, strict=True)]
            assert torch.equal(box[(slice(None), *local)], images[(row, slice(None), *place)])


@pytest.mark.parametrize("margin", [0, 3])
def test_boxes_equal_a_crop_of_the_padded_image(margin: int) -> None:
    images = torch.from_numpy(np.random.RandomState(1).rand(1, 3, 9, 8))
    whole = np.pad(images[0], [(0, 0), (margin, margin), (margin, margin)], mode="reflect")
    box = crop_boxes(images, [0], np.array([[-margin, -margin]]), [9 + 2 * margin, 8 + 2 * margin])
    np.testing.assert_array_equal(box[0], whole)


def test_one_box_equals_the_same_box_among_others() -> None:
    images = torch.from_numpy(np.random.RandomState(1).rand(4, 3, 9, 8))
    rows, corners = [3, 1, 1], np.array([[-2, 3], [5, 5], [0, 0]])
    together = crop_boxes(images, rows, corners, (6, 4))
    for number in range(3):
        alone = crop_boxes(images, rows[number : number + 1], corners[number : number + 1], (6, 4))
        assert torch.equal(alone[0], together[number])


def test_the_index_finds_the_voxels_of_a_box_in_the_flat_image() -> None:
    image = torch.from_numpy(np.random.RandomState(2).rand(7, 6, 5))
    corners = np.array([[2, 1, 0], [4, 3, 1]])
    index = linear_index(corners, (3, 3, 4), image.shape, CPU)
    for (a, b, c), row in zip(corners, index, strict=True):
        assert torch.equal(image.flatten()[row], image[a : a + 3, b : b + 3, c : c + 4].flatten())


def test_gradients_arrive_at_the_voxels_that_were_cut_out() -> None:
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    crop_boxes(images, [1], np.array([[1, -1]]), (2, 3)).sum().backward()
    expected = torch.zeros(2, 1, 5, 5)
    expected[1, 0, 1:3, 0] = 1
    expected[1, 0, 1:3, 1] = 2  # once mirrored, once itself
    assert torch.equal(images.grad, expected.double())


@pytest.mark.parametrize("border", [0, 1, 2])
def test_padding_and_border_are_no_inside(border: int) -> None:
    sizes = np.array([[3, 6], [5, 4], [1, 2]])
    inside = inside_boxes(sizes, (5, 6), CPU, border)
    assert inside.shape == (3, 1, 5, 6) and inside.dtype == torch.bool
    for row, (a, b) in enumerate(sizes):
        for i, j in product(range(5), range(6)):
            expected = border <= i < a - border and border <= j < b - border
            assert bool(inside[row, 0, i, j]) == expected


def test_points_are_the_coordinates_of_the_voxels() -> None:
    points = box_points((2, 3, 4), torch.zeros(1, dtype=torch.float64))
    assert points.shape == (2, 3, 4, 3) and points.dtype == torch.float64
    for place in product(range(2), range(3), range(4)):
        assert tuple(points[place].tolist()) == place
