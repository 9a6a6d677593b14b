# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.morphology import ball, disk, reconstruction
from torch import Tensor

from monai_anomaly.functional import labelling
from monai_anomaly.functional.labelling import (
    binary_label,
    flipped_gaussian_label,
    intensity_label,
    logistic_label,
    mean_change,
    saturating_label,
    smooth_support,
    weight_label,
)

EVERY: list[Callable[..., Tensor]] = [
    binary_label,
    weight_label,
    intensity_label,
    partial(intensity_label, width=5),
    partial(logistic_label, steepness=40.0, midpoint=0.1),
    partial(logistic_label, steepness=40.0, midpoint=0.1, width=3),
    flipped_gaussian_label,
    partial(flipped_gaussian_label, fill_holes=False),
    partial(saturating_label, steepness=10.0, ceiling=0.1),
]


def maps(*size: int, seed: int = 0, samples: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A change, a support of several regions and a weight."""
    rng = np.random.RandomState(seed)
    smooth = ndimage.gaussian_filter(rng.rand(samples, 1, *size), [0, 0, *[1.5] * len(size)])
    support = torch.from_numpy(smooth > np.quantile(smooth, 0.6))
    change = torch.from_numpy(rng.rand(samples, 1, *size).astype(np.float32)) * support
    return change, support, 0.3 * support


def windows(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Lower median over a footprint around every pixel, pixels beyond the border left out: the slow way."""
    result = np.zeros_like(image)
    reach = footprint.shape[0] // 2
    for place in np.ndindex(*image.shape):
        inside = [
            image[tuple(at)]
            for at in np.argwhere(footprint) - reach + place
            if all(0 <= a < n for a, n in zip(at, image.shape, strict=True))
        ]
        result[place] = sorted(inside)[(len(inside) - 1) // 2]
    return result


def closed_and_filled(crop: np.ndarray, connectivity: int = 2) -> np.ndarray:
    """Grey closing, then every pixel rises to the lowest pass on its way to the border of the crop."""
    near = ndimage.generate_binary_structure(crop.ndim, connectivity)
    closed = ndimage.minimum_filter(ndimage.maximum_filter(crop, footprint=near), footprint=near)
    level = np.full_like(closed, np.inf)
    for place in np.ndindex(*closed.shape):
        if any(at in (0, n - 1) for at, n in zip(place, closed.shape, strict=True)):
            level[place] = closed[place]
    while True:
        lowest = ndimage.minimum_filter(level, footprint=near, mode="nearest")
        new = np.minimum(level, np.maximum(closed, lowest))
        if (new == level).all():
            return level
        level = new


def by_libraries(crop: np.ndarray, connectivity: int) -> np.ndarray:
    """The same, by SciPy's closing and scikit-image's reconstruction by erosion."""
    near = ndimage.generate_binary_structure(crop.ndim, connectivity)
    closed = ndimage.grey_closing(crop, footprint=near)
    seed = closed.copy()
    seed[(slice(1, -1),) * crop.ndim] = closed.max()
    return np.asarray(reconstruction(seed, closed, method="erosion", footprint=near))


@pytest.mark.parametrize("label", EVERY)
@pytest.mark.parametrize("size", [(14, 11), (6, 7, 5)])
def test_every_label_lies_in_0_to_1_and_is_zero_outside_the_support(
    label: Callable[..., Tensor], size: tuple[int, ...]
) -> None:
    change, support, weight = maps(*size)
    result = label(change, support, weight)
    assert result.shape == change.shape and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    assert not result[~support].any() and result[support].any()


@pytest.mark.parametrize("label", EVERY)
def test_no_image_of_a_batch_depends_on_the_others(label: Callable[..., Tensor]) -> None:
    change, support, weight = maps(14, 11)
    alone = torch.cat([label(change[i : i + 1], support[i : i + 1], weight[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(label(change, support, weight), alone)


@pytest.mark.parametrize("label", EVERY)
def test_an_empty_support_gets_no_label(label: Callable[..., Tensor]) -> None:
    nothing = torch.zeros(1, 1, 8, 8)
    assert not label(nothing, nothing.bool(), nothing).any()


def test_the_change_is_the_mean_over_the_channels_inside_the_support() -> None:
    clean = torch.zeros(1, 3, 1, 2)
    image = torch.tensor([[[[0.3, 1.0]], [[-0.6, 1.0]], [[0.0, 1.0]]]])
    change = mean_change(image, clean, torch.tensor([[[[True, False]]]]))
    torch.testing.assert_close(change, torch.tensor([[[[0.3, 0.0]]]]))


def test_the_labels_without_a_filter_are_their_formulas() -> None:
    change, support, weight = maps(9, 12)
    x, inside = change.numpy().astype(float), support.numpy()
    wanted = {
        binary_label: inside,
        weight_label: 0.3 * inside,
        intensity_label: x * inside,
        partial(logistic_label, steepness=30.0, midpoint=0.2): inside / (1 + np.exp(-30 * (x - 0.2))),
        partial(flipped_gaussian_label, std=0.15, fill_holes=False): 1 - np.exp(-(x**2) / (2 * 0.15**2)),
        partial(saturating_label, steepness=8.0, ceiling=0.05): 1.05 / (1 + np.exp(-8 * x) / 0.05) - 0.05,
    }
    for label, value in wanted.items():
        result = label(change, support, weight).numpy()
        np.testing.assert_allclose(result, np.where(inside, value, 0), atol=2e-6)


def test_the_default_flipped_gaussian_has_the_papers_width() -> None:
    change = torch.full((1, 1, 3, 3), 0.2)
    label = flipped_gaussian_label(change, change > 0, change)
    torch.testing.assert_close(label, torch.full_like(change, 1 - np.exp(-0.5)))


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("size", [(20, 17), (9, 10, 8)])
@pytest.mark.parametrize("compat", [None, "published"])
def test_neighbors_and_regions_as_named(size: tuple[int, ...], connectivity: int, compat: str | None) -> None:
    change, support, weight = maps(*size, seed=4)
    result = flipped_gaussian_label(change, support, weight, connectivity=connectivity, compat=compat)[:, 0].numpy()
    plain = flipped_gaussian_label(change, support, weight, fill_holes=False)[:, 0].numpy()
    for image, inside, out in zip(plain, support[:, 0].numpy(), result, strict=True):
        regions, _ = ndimage.label(inside)
        wanted = image.copy() if compat else np.zeros_like(image)
        for number, box in enumerate(ndimage.find_objects(regions), 1):
            own = regions[box] == number
            if compat:
                wanted[box] = by_libraries(wanted[box], min(connectivity, len(size)))
            else:
                wanted[box][own] = by_libraries(image[box] * own, min(connectivity, len(size)))[own]
        np.testing.assert_allclose(out, wanted, atol=1e-6)


def test_in_3d_the_default_has_18_neighbors_and_26_are_had_by_name() -> None:
    change, support, weight = maps(9, 10, 8)
    default, edges, cube = (
        flipped_gaussian_label(change, support, weight, **chosen)
        for chosen in ({}, {"connectivity": 2}, {"connectivity": 3})
    )
    assert torch.equal(default, edges) and not torch.equal(default, cube)
    flat = maps(20, 17)
    in_2d = [flipped_gaussian_label(*flat, connectivity=number) for number in (2, 3)]
    assert torch.equal(*in_2d), "in 2D both are the square"


def test_a_region_does_not_feel_its_neighbors_unless_as_published() -> None:
    change = torch.zeros(1, 1, 9, 12)
    change[..., 0, 0:9] = change[..., :, 0] = 0.3  # an angle, in whose box another region lies
    alone = change.clone()
    change[..., 4:7, 4:7] = 0.5
    label, by_itself = (flipped_gaussian_label(x, x > 0, x) for x in (change, alone))
    assert torch.equal(label[alone > 0], by_itself[alone > 0]) and not label[change == 0].any()
    change[..., 2:4, 2:9] = 0.4
    change[..., 3, 3] = 0.0  # where nothing changed
    published = flipped_gaussian_label(change, change > 0, change, compat="published")
    own = flipped_gaussian_label(change, change > 0, change)
    assert float(published[0, 0, 3, 3]) > 0 and float(own[0, 0, 3, 3]) == 0


def test_each_region_is_closed_and_filled_by_itself() -> None:
    change, support, weight = maps(20, 17, seed=3)
    result = flipped_gaussian_label(change, support, weight)[:, 0].numpy()
    plain = flipped_gaussian_label(change, support, weight, fill_holes=False)[:, 0].numpy()
    for image, inside, out in zip(plain, support[:, 0].numpy(), result, strict=True):
        regions, count = ndimage.label(inside)
        assert count > 2
        wanted = np.zeros_like(image)
        for number in range(1, count + 1):
            rows, columns = np.nonzero(regions == number)
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            own = regions[box] == number
            wanted[box] += closed_and_filled(image[box] * own) * own
        np.testing.assert_allclose(out, wanted, atol=1e-6)
    assert (result > plain + 0.01).any()


def test_a_hole_in_a_label_is_filled_to_the_height_of_its_rim() -> None:
    change = torch.full((1, 1, 9, 9), 0.5)
    change[..., 2:7, 2:7] = 0.01
    label = flipped_gaussian_label(change, torch.ones_like(change, dtype=torch.bool), change)
    torch.testing.assert_close(label, torch.full_like(change, 1 - np.exp(-(0.5**2) / 0.08)))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_a_region_without_an_inside_keeps_its_label(size: tuple[int, int]) -> None:
    change = torch.zeros(1, 1, 7, 7)
    change[..., 3 : 3 + size[0], 2 : 2 + size[1]] = 0.3
    label = flipped_gaussian_label(change, change > 0, change)
    torch.testing.assert_close(label, flipped_gaussian_label(change, change > 0, change, fill_holes=False))


@pytest.mark.parametrize(("size", "footprint"), [((13, 10), disk(3)), ((6, 7, 5), ball(1)), ((4, 9), disk(5))])
def test_the_median_is_over_a_ball_and_leaves_out_what_is_beyond_the_border(
    size: tuple[int, ...], footprint: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "_MOST_VALUES", 3 * footprint.size)  # several parts
    change, support, weight = maps(*size)
    width = len(footprint)
    wanted = np.stack([windows(image, footprint) for image in change[:, 0].numpy()])[:, None] * support.numpy()
    np.testing.assert_array_equal(intensity_label(change, support, weight, width).numpy(), wanted)
    logistic = logistic_label(change, support, weight, 25.0, 0.3, width).numpy()
    np.testing.assert_allclose(logistic, support.numpy() / (1 + np.exp(-25 * (wanted - 0.3))), atol=1e-6)


def test_inside_the_image_the_median_is_the_library_s() -> None:
    change, support, weight = maps(30, 26)
    wanted = ndimage.median_filter(change[0, 0].numpy(), footprint=disk(5)) * support[0, 0].numpy()
    result = intensity_label(change, support, weight, 11)[0, 0].numpy()
    np.testing.assert_array_equal(result[5:-5, 5:-5], wanted[5:-5, 5:-5])
    smooth = ndimage.median_filter(support[0, 0].numpy(), 5)
    np.testing.assert_array_equal(smooth_support(support)[0, 0, 2:-2, 2:-2].numpy(), smooth[2:-2, 2:-2])


@pytest.mark.parametrize(("size", "width"), [((9, 8), 5), ((9, 8), 3), ((5, 6, 4), 3), ((4, 4), 1)])
def test_a_support_is_smoothed_by_its_majority(size: tuple[int, ...], width: int) -> None:
    _, support, _ = maps(*size)
    footprint = np.ones((width,) * len(size))
    wanted = np.stack([windows(image, footprint) for image in support[:, 0].numpy()])[:, None]
    np.testing.assert_array_equal(smooth_support(support, width).numpy(), wanted)


@pytest.mark.parametrize("width", [0, 2, -1])
def test_a_window_has_a_center(width: int) -> None:
    change, support, weight = maps(8, 8)
    with pytest.raises(ValueError, match=f"width must be odd and 1 or more, got {width}"):
        smooth_support(support, width)
    with pytest.raises(ValueError, match=f"width must be odd and 1 or more, got {width}"):
        intensity_label(change, support, weight, width)


@pytest.mark.parametrize(
    ("label", "arguments"),
    [
        (flipped_gaussian_label, {"std": 0.0}),
        (saturating_label, {"steepness": 5.0, "ceiling": 0.0}),
    ],
)
def test_settings_that_make_no_label_are_refused(label: Callable[..., Tensor], arguments: dict[str, float]) -> None:
    change = torch.rand(1, 1, 5, 5)
    with pytest.raises(ValueError, match="must be above 0, got 0.0"):
        label(change, change > 0, change, **arguments)


def test_unknown_neighbors_and_regions_are_refused() -> None:
    change = torch.rand(1, 1, 5, 5)
    with pytest.raises(ValueError, match="connectivity must be 1, 2 or 3, got 4"):
        flipped_gaussian_label(change, change > 0, change, connectivity=4)
    with pytest.raises(ValueError, match="compat must be None or \"published\", got 'upd'"):
        flipped_gaussian_label(change, change > 0, change, compat="upd")


def test_filling_ends_whatever_the_change() -> None:
    change = torch.rand(1, 1, 9, 9)
    change[0, 0, 4, 4] = torch.nan
    flipped_gaussian_label(change, torch.ones_like(change, dtype=torch.bool), change)


def test_the_median_of_a_gpu_is_that_of_a_cpu() -> None:
    values = torch.rand(50, 9, generator=torch.Generator().manual_seed(0))
    values[torch.rand(50, 9, generator=torch.Generator().manual_seed(1)) < 0.4] = torch.nan
    values[:, 4] = 0.5
    sorted_first = labelling.lower_median(values, sort=True)
    assert torch.equal(sorted_first, labelling.lower_median(values))
    expected = [sorted(x for x in row if x == x)[(sum(x == x for x in row) - 1) // 2] for row in values.tolist()]
    np.testing.assert_allclose(sorted_first.numpy(), expected)
