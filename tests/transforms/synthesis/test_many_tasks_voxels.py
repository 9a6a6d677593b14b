# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What each of the five tasks does to the voxels, against slow formulas."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage, stats
from torch import Tensor

from monai_anomaly.functional.blending import poisson_blend
from monai_anomaly.functional.labelling import binary_label
from monai_anomaly.functional.shapes import DeformedShape, deform_shape
from monai_anomaly.transforms.synthesis.corruptors import IntensityChange, RadialWarp
from monai_anomaly.transforms.synthesis.many_tasks import (
    RandFractalIntensity,
    RandPoissonBlend,
    RandSinkDeform,
    RandSmoothIntensity,
    RandSourceDeform,
)
from monai_anomaly.transforms.synthesis.plan import Frame, Patch

WARPS = {"sink": RandSinkDeform, "source": RandSourceDeform}
ONE: dict[str, Any] = {"max_anomalies": 1, "labeller": binary_label}


def textured(channels: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    noise = ndimage.gaussian_filter(np.random.RandomState(seed).rand(channels, *shape), (0, *[1.2] * len(shape)))
    return torch.from_numpy((noise - noise.min()) / np.ptp(noise)).float()


def round_shape(width: int, dims: int = 2, kind: str = "ellipsoid") -> DeformedShape:
    return deform_shape(np.random.RandomState(0), np.full(dims, width), (999,) * dims, kind, 0.0, 0.0)


# --- warps ----------------------------------------------------------------------------------------------------------


def edge_distance(shape: DeformedShape, center: np.ndarray, way: np.ndarray) -> float:
    """March along a ray until it leaves the shape, then halve the last step again and again."""
    inverse = np.linalg.inv(shape.matrix)

    def inside(distance: float) -> bool:
        u = np.abs(inverse @ (center + distance * way)) / shape.half
        return bool(u.max() <= 1) if shape.kind == "box" else bool((u**2).sum() <= 1)

    distance = 0.0
    while inside(distance + 0.5):
        distance += 0.5
    low, high = distance, distance + 0.5
    for _ in range(30):
        low, high = ((low + high) / 2, high) if inside((low + high) / 2) else (low, (low + high) / 2)
    return low


def slow_warp(image: np.ndarray, patch: Patch, kind: str) -> np.ndarray:
    """Find the origin of one voxel after the other, by the published formula."""
    shape, center, k = patch.shape, patch.parameters["center"], patch.parameters["exponent"]
    assert shape is not None
    result = image.copy()
    for place in np.argwhere(patch.mask):
        r = np.linalg.norm(place - center)
        if r == 0:
            continue
        way = (place - center) / r
        edge = edge_distance(shape, center + shape.low, way)
        rho = min(r / max(edge, r), 1)
        edge = max(edge, r)
        read = edge * rho**k if kind == "source" else edge - edge * (1 - rho) ** k
        point = (center + read * way + patch.corner)[:, None]
        for channel in range(len(image)):
            value = ndimage.map_coordinates(image[channel], point, order=3, mode="mirror")[0]
            result[(channel, *(place + patch.corner))] = np.clip(value, image[channel].min(), image[channel].max())
    return result


@pytest.mark.parametrize(("channels", "shape"), [(1, (40, 36)), (2, (30, 32)), (1, (14, 16, 12))])
@pytest.mark.parametrize("kind", WARPS)
def test_warps_equal_the_formula_voxel_by_voxel(kind: str, channels: int, shape: tuple[int, ...]) -> None:
    image, corruption = textured(channels, shape), WARPS[kind](tolerance=0.0, **ONE)
    checked = 0
    for seed in range(9):
        plan = corruption.plan(np.random.RandomState(seed), image)
        (patch,) = plan.patches
        if patch.mask.sum() > 500:
            continue
        found = corruption.apply(image[None], [plan])["image"][0]
        expected = slow_warp(image.numpy().astype(float), patch, kind)
        np.testing.assert_allclose(found, expected, atol=5e-4)
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize("dims", [2, 3])
def test_a_sink_shrinks_a_bright_disk_and_a_source_enlarges_it(dims: int) -> None:
    shape = (64,) * dims if dims == 2 else (32,) * dims
    width = 41 if dims == 2 else 23
    brightness = {}
    for kind, transform in WARPS.items():
        corruption = transform((3.0, 3.0), "voxel", shape=lambda rng, frame: round_shape(width, dims), **ONE)
        plan = corruption.plan(np.random.RandomState(2), torch.zeros(1, *shape))
        (patch,) = plan.patches
        center = patch.parameters["center"] + patch.corner
        distance = np.linalg.norm(np.indices(shape).T - center, axis=-1).T
        image = torch.from_numpy(1 / (1 + np.exp(2 * (distance - 5)))).float()[None]
        result = corruption.apply(image[None], [plan])["image"][0]
        brightness[kind] = float((result > 0.5).sum()) / float((image > 0.5).sum())
        at = (0, *center.astype(int))
        assert torch.isclose(result[at], image[at], atol=1e-4)
    assert brightness["sink"] < 0.7 and brightness["source"] > 1.4


def test_sink_and_source_have_the_same_exponent() -> None:
    image = textured(1, (60, 50))
    for seed in range(20):
        sink, source = (t().plan(np.random.RandomState(seed), image).patches[0] for t in WARPS.values())
        assert sink.parameters["exponent"] == source.parameters["exponent"]
        assert np.array_equal(sink.mask, source.mask) and sink.corner == source.corner


def mean_radius(mask: np.ndarray, center: np.ndarray) -> float:
    """Mean distance to the voxels of the mask with a neighbor, along an axis, outside of it."""
    padded = np.pad(mask, 1)
    distances = []
    for place in np.argwhere(mask):
        around = [
            tuple(place + 1 + step * np.eye(mask.ndim, dtype=int)[a]) for a in range(mask.ndim) for step in (-1, 1)
        ]
        if not all(padded[p] for p in around):
            distances.append(np.linalg.norm(place - center))
    return float(np.mean(distances))


def draw_warps(
    push: tuple[float, float], width: int = 21, unit: str = "voxel", count: int = 25, **frame: Any
) -> list[Patch]:
    rng, shape = np.random.RandomState(0), round_shape(width)
    where = Frame(torch.zeros(1, 64, 96), **frame)
    patches = [Patch((0, 0), shape.mask.copy(), shape) for _ in range(count)]
    found = [RadialWarp("sink", push, unit).draw(rng, patch, where) for patch in patches]
    return [patch for patch in found if patch is not None]


@pytest.mark.parametrize("push", [(0.0, 0.1), (0.1, 99.0), (50.0, 99.0), (3.0, 3.0), (0.2, 2.0)])
def test_the_push_is_clamped_to_the_size_of_the_shape(push: tuple[float, float]) -> None:
    low, high = push
    for patch in draw_warps(push):
        m = mean_radius(patch.mask, patch.parameters["center"]) / np.sqrt(2)
        drawn = patch.parameters["push"]
        if low >= 0.9 * m:
            assert np.isclose(drawn, 0.9 * m)
        elif high <= 0.1 * m:
            assert np.isclose(drawn, 0.1 * m)
        else:
            assert max(low, 0.1 * m) - 1e-9 <= drawn <= min(high, 0.9 * m) + 1e-9
        q = drawn / (2 * m)
        assert np.isclose(patch.parameters["exponent"], np.log(0.5 - q) / np.log(0.5 + q))
        assert 1 < patch.parameters["exponent"] <= 58.41


def test_the_push_is_uniform_and_the_center_any_voxel() -> None:
    patches = draw_warps((1.0, 3.0), count=600)
    assert stats.kstest([p.parameters["push"] for p in patches], "uniform", (1, 2)).pvalue > 0.01
    centers = np.array([p.parameters["center"] for p in patches]).astype(int)
    mask = patches[0].mask
    assert mask[tuple(centers.T)].all()
    upper = (np.argwhere(mask)[:, 0] < mask.shape[0] // 3).mean()
    assert stats.binomtest(int((centers[:, 0] < mask.shape[0] // 3).sum()), 600, upper).pvalue > 0.01


def test_pushes_as_fractions_and_in_millimeters() -> None:
    fractions = [p.parameters["push"] for p in draw_warps((0.03, 0.03), unit="fraction")]
    assert np.allclose(fractions, 0.03 * 80)
    millimeters = [p.parameters["exponent"] for p in draw_warps((1.5, 1.5), unit="mm", spacing=(0.5, 0.5))]
    assert np.allclose(millimeters, [p.parameters["exponent"] for p in draw_warps((3.0, 3.0), unit="voxel")])


def test_a_shape_of_one_voxel_is_not_warped() -> None:
    shape = round_shape(1)
    patch = Patch((0, 0), np.ones((1, 1), dtype=bool), shape)
    assert RadialWarp("sink").draw(np.random.RandomState(0), patch, Frame(torch.zeros(1, 20, 20))) is None


@pytest.mark.parametrize(
    "kwargs",
    [
        {"kind": "twirl"},
        {"kind": "sink", "push": (3, 2)},
        {"kind": "sink", "push": (-1, 2)},
        {"kind": "sink", "unit": "cm"},
    ],
)
def test_arguments_outside_their_range_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RadialWarp(**kwargs)
    with pytest.raises(ValueError, match="must be"):
        IntensityChange(scale=0)


# --- intensity ------------------------------------------------------------------------------------------------------


def depths(mask: np.ndarray) -> np.ndarray:
    """Distance of each voxel to the nearest one outside, and all beyond the box is outside."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    result = np.zeros(mask.shape)
    for place in np.argwhere(mask):
        result[tuple(place)] = np.linalg.norm(outside - place - 1, axis=1).min()
    return result


def change_of(mask: np.ndarray, channels: int = 1, seed: int = 0, **kwargs: Any) -> np.ndarray:
    """What is added to an image as large as the mask (C, *S)."""
    settings = {"shape": lambda rng, frame: mask.copy(), "clip": None, "tolerance": 0.0, **ONE, **kwargs}
    zero = torch.zeros(channels, *mask.shape)
    return RandSmoothIntensity(**settings).set_random_state(seed)(zero)["image"].numpy().astype(float)


@pytest.mark.parametrize("shape", [(11, 11), (9, 14), (7, 8, 6)])
def test_the_ramp_of_a_full_mask_is_symmetric(shape: tuple[int, ...]) -> None:
    for seed in range(5):
        change = change_of(np.ones(shape, dtype=bool), seed=seed)[0]
        assert change.all()
        for axes in product([False, True], repeat=len(shape)):
            flipped = np.flip(change, [axis for axis, turn in enumerate(axes) if turn])
            np.testing.assert_allclose(flipped, change, atol=1e-7)


@pytest.mark.parametrize("shape", [(30, 26), (12, 11, 13)])
def test_the_ramp_rises_with_the_distance_to_the_edge(shape: tuple[int, ...]) -> None:
    mask = ndimage.gaussian_filter(np.random.RandomState(0).rand(*shape), 2.5) > 0.5
    expected = depths(mask)
    for seed in range(8):
        change = change_of(mask, seed=seed)[0]
        ramp = change / change.flat[np.abs(change).argmax()]
        rising = (ramp > 0) & (ramp < 0.9999)
        reach = expected[rising] / ramp[rising] if rising.any() else np.array([1.0])
        np.testing.assert_allclose(reach, reach[0], rtol=1e-4)
        np.testing.assert_allclose(ramp, np.minimum(expected / reach[0], 1), atol=1e-4)


def test_the_reach_of_the_ramp_follows_its_distribution() -> None:
    mask = np.ones((90, 120), dtype=bool)
    reaches = []
    for seed in range(150):
        change = np.abs(change_of(mask, seed=seed)[0])
        reaches.append(change.max() / change[0, 0])  # the corner lies one voxel deep
    assert stats.kstest(np.array(reaches) / 90, stats.gamma(3, loc=0.02, scale=0.01).cdf).pvalue > 0.01


def test_the_reach_of_the_ramp_does_not_depend_on_the_sampling() -> None:
    """The same body, 90 mm x 90 mm, with voxels of 1 mm and of 1 mm x 3 mm: the plateau covers as much of it."""
    shares = []
    for spacing, shape in (((1.0, 1.0), (90, 90)), ((1.0, 3.0), (90, 30))):
        mask = np.ones(shape, dtype=bool)
        affine = torch.diag(torch.tensor([*spacing, 1.0, 1.0]))
        settings: dict[str, Any] = {"clip": None, "tolerance": 0.0, **ONE}
        corruption = RandSmoothIntensity(shape=lambda rng, frame, mask=mask: mask.copy(), **settings)
        change = corruption.set_random_state(0)(MetaTensor(torch.zeros(1, *shape), affine=affine))["image"].abs()
        shares.append(float((change > 0.999 * change.max()).float().mean()))
    assert abs(shares[0] - shares[1]) < 0.1


def test_one_strength_and_a_sign_for_each_channel() -> None:
    mask = np.ones((9, 9), dtype=bool)
    strengths, signs = [], []
    for seed in range(400):
        change = change_of(mask, channels=2, seed=seed)
        np.testing.assert_allclose(np.abs(change[0]), np.abs(change[1]), atol=1e-6)
        strengths.append(np.abs(change).max())
        signs.append([c.flat[np.abs(c).argmax()] > 0 for c in change])
    assert stats.kstest(strengths, stats.gamma(3, loc=0.1, scale=0.2).cdf).pvalue > 0.01
    counts = np.unique(np.array(signs) @ [1, 2], return_counts=True)[1]
    assert len(counts) == 4 and stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize(("channels", "shape"), [(1, (30, 26)), (3, (24, 28)), (1, (12, 14, 13))])
@pytest.mark.parametrize("transform", [RandSmoothIntensity, RandFractalIntensity])
def test_channels_are_clipped_to_their_range_over_all_axes(
    transform: Any, channels: int, shape: tuple[int, ...]
) -> None:
    image = textured(channels, shape) * torch.linspace(0.4, 1, channels).reshape(-1, *[1] * len(shape))
    for axis in range(len(shape)):  # a plane of one value across each axis, which its own range could not leave
        image.select(axis + 1, shape[axis] // 2).copy_(image.flatten(1).mean(1).reshape(-1, *[1] * (len(shape) - 1)))
    corruption = transform(scale=20.0, shape=lambda rng, frame: np.ones(shape, dtype=bool), clip="channel", **ONE)
    for seed in range(4):
        result = corruption.set_random_state(seed)(image)["image"]
        for before, after in zip(image, result, strict=True):
            assert after.min() == before.min() or after.max() == before.max()
            assert before.min() <= after.min() and after.max() <= before.max()
            for axis in range(len(shape)):
                plane = after.select(axis, shape[axis] // 2)
                assert float((plane - before.mean()).abs().max()) > 0.1 * float(np.ptp(before.numpy()))


def test_clipping_to_the_sample_and_to_given_values() -> None:
    image = textured(2, (20, 20)) * torch.tensor([0.5, 1.0]).reshape(2, 1, 1)
    for clip, low, high in (("sample", float(image.min()), float(image.max())), ((-0.5, 3.0), -0.5, 3.0)):
        extremes = []
        for seed in range(6):
            settings: dict[str, Any] = {"shape": lambda rng, frame: np.ones((20, 20), bool), "clip": clip, **ONE}
            result = RandSmoothIntensity(20.0, **settings).set_random_state(seed)(image)["image"]
            extremes.append([float(result[0].min()), float(result[0].max())])
        np.testing.assert_allclose([np.min(extremes), np.max(extremes)], [low, high], atol=1e-6)


def test_fractal_noise_varies_inside_and_fades_to_the_edge() -> None:
    mask = np.ones((40, 44), dtype=bool)
    for seed in range(6):
        settings: dict[str, Any] = {"shape": lambda rng, frame: mask.copy(), "clip": None, "tolerance": 0.0, **ONE}
        task = RandFractalIntensity(**settings).set_random_state(seed)
        change = task(torch.zeros(2, 40, 44))["image"].numpy().astype(float)
        np.testing.assert_allclose(np.abs(change[0]), np.abs(change[1]), atol=1e-7)
        assert (change[0] >= 0).all() or (change[0] <= 0).all()
        inner = np.abs(change[0, 12:-12, 12:-12])
        assert np.ptp(inner) > 0.15 * np.abs(change).max()
        border = np.concatenate([np.abs(change[0][side]) for side in ((0,), (-1,), (slice(None), 0))])
        assert border.max() < np.abs(change).max()
        spikes = np.abs(np.diff(change[0], axis=0)).max()
        assert spikes < 0.8 * np.abs(change).max()  # noise, but a smooth one


def test_the_strength_of_the_fractal_change_is_half_as_large() -> None:
    peaks = {}
    for transform in (RandSmoothIntensity, RandFractalIntensity):
        settings: dict[str, Any] = {"shape": lambda rng, frame: np.ones((30, 30), bool), "clip": None, **ONE}
        corruption = transform(**settings).set_random_state(0)
        peaks[transform] = np.array(
            [float(corruption(torch.zeros(1, 30, 30))["image"].abs().max()) for _ in range(200)]
        )
    # the noise reaches 1, but maybe where the ramp does not
    assert 0.35 < peaks[RandFractalIntensity].mean() / peaks[RandSmoothIntensity].mean() < 0.5
    assert stats.gamma(3, loc=0.05, scale=0.1).cdf(peaks[RandFractalIntensity].max()) < 0.99999


# --- Poisson --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "shape"), [(1, (44, 40)), (3, (36, 40)), (1, (16, 18, 17))])
@pytest.mark.parametrize("mode", ["mixed", "source"])
def test_blends_equal_a_slow_blend_of_the_transformed_source(channels: int, shape: tuple[int, ...], mode: str) -> None:
    image, sources = textured(channels, shape), [textured(channels, shape, seed) for seed in (1, 2)]
    corruption = RandPoissonBlend(sources, mode, **ONE)
    for seed in range(6):
        plan = corruption.plan(np.random.RandomState(seed), image)
        result = corruption.apply(image[None], [plan])
        (patch,) = plan.patches
        drawn = json.loads(json.dumps(plan.describe()))[0]
        part = []
        for channel in sources[drawn["source"]].numpy().astype(float):
            values = ndimage.affine_transform(
                channel, np.array(drawn["matrix"]), drawn["offset"], tuple(drawn["size"]), order=3, mode="mirror"
            )
            part.append(np.clip(values, channel.min(), channel.max()))
        expected, support = poisson_blend(
            image.numpy().astype(float), np.stack(part), patch.mask, patch.corner, mode, clip="channel"
        )
        np.testing.assert_allclose(result["image"][0], expected, atol=2e-3)
        close = np.isclose(result["image"][0], expected, atol=2e-4).mean()
        assert close > 0.99  # but for changes as large as the tolerance, undone in one of the two
        assert (result["support"][0, 0].numpy() != support).mean() < 0.01
