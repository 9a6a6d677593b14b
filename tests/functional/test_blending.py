# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import fft, ndimage, sparse
from scipy.sparse.linalg import spsolve

from monai_anomaly.functional.blending import poisson_blend, poisson_blend_boxes

SIZES = [(3, 3), (3, 7), (6, 4), (9, 8), (3, 3, 3), (5, 3, 4), (6, 5, 7)]
MODES = ("mixed", "source", "pii")


def case(
    size: tuple[int, ...], seed: int = 0, channels: int = 1, fill: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A target box, a source box and a mask, float64."""
    rng = np.random.RandomState(seed)
    target, source = rng.rand(channels, *size), rng.rand(channels, *size)
    mask = rng.rand(*size) < fill
    mask[tuple(length // 2 for length in size)] = True
    return target, source, mask


def neighbors(place: tuple[int, ...]) -> list[tuple[int, ...]]:
    steps = [(axis, step) for axis in range(len(place)) for step in (-1, 1)]
    return [tuple(p + step * (a == axis) for a, p in enumerate(place)) for axis, step in steps]


def inner(mask: np.ndarray) -> np.ndarray:
    """A copy of the mask without the border of the box."""
    result = np.zeros_like(mask)
    core = tuple(slice(1, -1) for _ in mask.shape)
    result[core] = mask[core]
    return result


def edge_of(own: float, foreign: float, mode: str, alpha: float) -> float:
    """What the guidance says about one difference between two neighbors."""
    if mode == "source":
        return foreign
    if mode == "mixed":
        return own if abs(own) >= abs(foreign) else foreign
    own, foreign = (1 - alpha) * own, alpha * foreign
    return own if abs(own) > abs(foreign) else foreign


def slow_divergence(
    t: np.ndarray, s: np.ndarray, m: np.ndarray, place: tuple[int, ...], mode: str, alpha: float
) -> float:
    """Sum over the neighbors j of voxel i of the wanted f_j - f_i, one edge after the other."""
    total = 0.0
    for other in neighbors(place):
        lower = min(place, other)
        guided = m[lower] if mode != "pii" else m[place] or m[other]
        own, foreign = t[other] - t[place], s[other] - s[place]
        total += edge_of(own, foreign, mode, alpha) if guided else own
    return total


def solve(t: np.ndarray, free: np.ndarray, wanted: dict[tuple[int, ...], float]) -> np.ndarray:
    """Solve ``sum_j (f_j - f_i) = wanted_i`` for the free voxels, all others held at ``t``."""
    places = [tuple(int(i) for i in place) for place in np.argwhere(free)]
    number = {place: n for n, place in enumerate(places)}
    matrix, right = sparse.lil_matrix((len(places), len(places))), np.zeros(len(places))
    for place, n in number.items():
        matrix[n, n] = -2 * t.ndim
        right[n] = wanted[place]
        for other in neighbors(place):
            if other in number:
                matrix[n, number[other]] = 1
            else:
                right[n] -= t[other]
    result = t.copy()
    result[free] = np.atleast_1d(spsolve(matrix.tocsr(), right))
    return result


def slow_blend(target: np.ndarray, source: np.ndarray, mask: np.ndarray, mode: str, alpha: float = 1.0) -> np.ndarray:
    """Solve a box with one unknown for each voxel inside, one channel after the other."""
    m, free = inner(mask), inner(np.ones_like(mask))
    places = [tuple(int(i) for i in place) for place in np.argwhere(free)]
    return np.stack(
        [
            solve(t, free, {p: slow_divergence(t, s, m, p, mode, alpha) for p in places})
            for t, s in zip(target, source, strict=True)
        ]
    )


def blend_box(target: np.ndarray, source: np.ndarray, mask: np.ndarray, **kwargs: object) -> np.ndarray:
    """The box that is the whole image, not clipped, no change undone."""
    settings: dict = {"corner": (0,) * mask.ndim, "clip": None, "tolerance": 0.0, **kwargs}
    return poisson_blend(target, source, mask, **settings)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_array_and_tensor_equal_a_sparse_solve(size: tuple[int, ...], mode: str) -> None:
    target, source, mask = case(size, channels=2)
    alpha = 0.4
    expected = slow_blend(target, source, mask, mode, alpha)
    np.testing.assert_allclose(blend_box(target, source, mask, mode=mode, alpha=alpha), expected, atol=1e-10)
    tensors = (torch.from_numpy(a) for a in (target, source, mask))
    result = blend_box(*tensors, mode=mode, alpha=alpha)
    np.testing.assert_allclose(result, expected, atol=1e-10)
    single = poisson_blend_boxes(
        *(torch.from_numpy(a).float()[None] for a in (target, source)),
        torch.from_numpy(mask)[None, None],
        mode=mode,
        alpha=alpha,
    )
    np.testing.assert_allclose(single[0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["mixed", "source"])
@pytest.mark.parametrize("size", [(3, 3), (9, 8), (6, 5, 7)])
def test_equals_the_published_steps_one_by_one(size: tuple[int, ...], mode: str) -> None:
    target, source, mask = case(size)
    t, s, dims = target[0], source[0], len(size)
    m = inner(mask).astype(float)
    core = tuple(slice(1, -1) for _ in size)
    b = np.zeros(size)
    for d in range(dims):
        mirrored = [(0, 1) if axis == d else (0, 0) for axis in range(dims)]
        g_t, g_s = (np.diff(np.pad(f, mirrored, mode="reflect"), axis=d) for f in (t, s))
        v = g_s if mode == "source" else np.where(np.abs(g_t) >= np.abs(g_s), g_t, g_s)
        w = g_t * (1 - m) + v * m
        b += np.diff(w, axis=d, prepend=0)
    border = t.copy()
    border[core] = 0
    b = (b - sum(np.roll(border, step, axis=d) for d in range(dims) for step in (-1, 1)) + 2 * dims * border)[core]
    frequencies = np.meshgrid(*[np.arange(p - 2) for p in size], indexing="ij")
    denominator = sum(2 * np.cos(np.pi * (k + 1) / (p - 1)) - 2 for k, p in zip(frequencies, size, strict=True))
    expected = t.copy()
    expected[core] = fft.idstn(fft.dstn(b, type=1) / denominator, type=1)
    np.testing.assert_allclose(blend_box(target, source, mask, mode=mode)[0], expected, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 7), (5, 4, 6)])
@pytest.mark.parametrize("mode", MODES)
def test_sparse_solver_holds_all_voxels_outside_the_mask(mode: str, size: tuple[int, ...]) -> None:
    target, source, mask = case(size, fill=0.5)
    t, s, m = target[0], source[0], inner(mask)
    wanted = {}
    for place in map(tuple, np.argwhere(m).tolist()):
        differences = [(t[other] - t[place], s[other] - s[place]) for other in neighbors(place)]
        wanted[place] = sum(edge_of(own, foreign, mode, 0.7) for own, foreign in differences)
    result = blend_box(target, source, mask, mode=mode, alpha=0.7, solver="sparse")[0]
    np.testing.assert_allclose(result, solve(t, m, wanted), atol=1e-10)
    assert np.array_equal(result[~m], t[~m])
    assert np.abs(result - t)[m].max() > 0.05


def test_pii_solvers_agree_where_the_mask_fills_the_box() -> None:
    target, source, mask = case((8, 7), fill=1.1)
    dst, sparse_ = (blend_box(target, source, mask, mode="pii", alpha=0.6, solver=s) for s in ("dst", "sparse"))
    np.testing.assert_allclose(dst, sparse_, atol=1e-12)


def test_pii_interpolates_between_the_two_images() -> None:
    target, source, mask = case((8, 7), fill=1.1)
    np.testing.assert_allclose(blend_box(target, source, mask, mode="pii", alpha=0.0), target, atol=1e-12)
    foreign = blend_box(target, source, mask, mode="pii", alpha=1.0)
    # the source itself, bent to the target's border by a harmonic function
    laplace = ndimage.laplace(foreign[0] - source[0])[1:-1, 1:-1]
    np.testing.assert_allclose(laplace, 0, atol=1e-10)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["mixed", "source"])
def test_nothing_changes_where_source_and_target_are_equal(mode: str, kind: type) -> None:
    for size in ((3, 3), (40, 31), (9, 8, 10)):
        image = np.random.RandomState(1).rand(3, *size).astype(kind)
        mask = np.ones(size, dtype=bool)
        for source in (image, image + kind(0.25)):
            result, _ = poisson_blend(image, source, mask, (0,) * len(size), mode=mode, tolerance=0.0)
            np.testing.assert_allclose(result, image, atol=1e-6)
            tensors = (torch.from_numpy(a) for a in (image, source, mask))
            result, _ = poisson_blend(*tensors, (0,) * len(size), mode=mode, tolerance=0.0)
            np.testing.assert_allclose(result, image, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_an_offset_of_the_source_changes_nothing(mode: str) -> None:
    target, source, mask = case((11, 9), channels=3)
    one = blend_box(target, source, mask, mode=mode, alpha=0.5)
    other = blend_box(target, source + np.array([0.5, -2.0, 7.0])[:, None, None], mask, mode=mode, alpha=0.5)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(one - target).max() > 0.1


@pytest.mark.parametrize("solver", ["dst", "sparse"])
@pytest.mark.parametrize("mode", MODES)
def test_border_of_the_box_and_all_arguments_stay(mode: str, solver: str) -> None:
    rng = np.random.RandomState(3)
    target, (_, source, _) = rng.rand(1, 20, 18), case((8, 7))
    mask = np.ones((8, 7), dtype=bool)
    before = [a.copy() for a in (target, source, mask)]
    result, support = poisson_blend(target, source, mask, (5, 9), mode=mode, alpha=0.8, solver=solver, clip=None)
    for array, copy in zip((target, source, mask), before, strict=True):
        assert np.array_equal(array, copy)
    changed = (result != target)[0]
    assert changed[6:12, 10:15].all()
    changed[6:12, 10:15] = False
    assert not changed.any()
    assert support[5:13, 9:16].all() and support.sum() == 56


@pytest.mark.parametrize("size", [(9, 8), (6, 5, 7)])
def test_a_mask_at_the_border_counts_as_one_without_it(size: tuple[int, ...]) -> None:
    target, source, _ = case(size)
    full = np.ones(size, dtype=bool)
    for mode in MODES:
        one, other = (blend_box(target, source, mask, mode=mode, alpha=0.5) for mask in (full, inner(full)))
        np.testing.assert_array_equal(one, other)


def test_voxels_outside_the_mask_change_and_belong_to_the_support() -> None:
    target, source, _ = case((14, 12))
    mask = np.zeros((14, 12), dtype=bool)
    mask[5:9, 4:8] = True
    for image, other, where in ((target, source, mask), tuple(map(torch.from_numpy, (target, source, mask)))):
        free, _ = poisson_blend(image, other, where, (0, 0), clip=None, tolerance=0.0)
        result, support = poisson_blend(image, other, where, (0, 0), clip=None, tolerance=0.01)
        result, support, free = (np.asarray(a) for a in (result, support, free))
        change = np.abs(free - target).mean(0)
        assert np.array_equal(support, mask | (change > 0.01))
        assert (support & ~mask).sum() > 10
        undone = ~support & (change > 0)
        assert undone.sum() > 10
        assert np.array_equal(result[:, ~support], target[:, ~support])
        assert np.array_equal(result[:, support], free[:, support])


def test_the_change_counts_by_its_mean_over_the_channels() -> None:
    target, source, mask = case((10, 10), channels=4, fill=0.1)
    target, source = target * 0.1, source * 0.1
    free = blend_box(target, source, mask)
    _, support = poisson_blend(target, source, mask, (0, 0), clip=None, tolerance=0.02)
    assert np.array_equal(support, mask | (np.abs(free - target).mean(0) > 0.02))
    assert not np.array_equal(support, mask | (np.abs(free - target).max(0) > 0.02))


@pytest.mark.parametrize("dims", [2, 3])
def test_each_channel_is_clipped_to_its_own_range_over_all_axes(dims: int) -> None:
    rng = np.random.RandomState(5)
    size, box = (16, 14, 12)[:dims], (12, 11, 9)[:dims]
    scale = np.array([0.2, 1.0]).reshape(-1, *[1] * dims)
    target = rng.rand(2, *size) * scale
    target[(slice(None), 7)] = 0.1 * scale[:, 0]  # a row, or a plane, of one value only
    source = 5 * rng.rand(2, *box)
    mask = np.ones(box, dtype=bool)
    free, _ = poisson_blend(target, source, mask, (2,) * dims, clip=None)
    axes = tuple(range(1, dims + 1))
    low, high = target.min(axes, keepdims=True), target.max(axes, keepdims=True)
    assert free.max() > 1.2 and free.min() < -0.2
    clipped, _ = poisson_blend(target, source, mask, (2,) * dims)
    np.testing.assert_allclose(clipped, np.clip(free, low, high), atol=1e-12)
    assert np.ptp(clipped[1, 7]) > 0.5
    tensor, _ = poisson_blend(*map(torch.from_numpy, (target, source, mask)), (2,) * dims)
    np.testing.assert_allclose(tensor, clipped, atol=1e-10)


def test_channels_are_solved_alone() -> None:
    target, source, mask = case((9, 8), channels=3)
    whole = blend_box(target, source, mask)
    for channel in range(3):
        alone = blend_box(target[channel : channel + 1], source[channel : channel + 1], mask)
        np.testing.assert_allclose(whole[channel], alone[0], atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [2, 3])
def test_boxes_of_different_sizes_equal_one_by_one(dims: int, mode: str) -> None:
    rng = np.random.RandomState(8)
    sizes = rng.randint(3, 12, (6, dims))
    sizes[0], sizes[1] = 3, 11
    padded = tuple(sizes.max(0))
    # the padding holds what it likes
    target, source = 50 * rng.randn(2, 6, 2, *padded)
    mask = rng.rand(6, 1, *padded) < 0.7
    alpha = rng.uniform(0.1, 0.9, 6)
    expected = target.copy()
    for row, size in enumerate(sizes):
        box = (slice(None), *map(slice, size))
        target[row][box], source[row][box] = rng.rand(2, 2, *size)
        expected[row] = target[row]
        expected[row][box] = slow_blend(target[row][box], source[row][box], mask[row, 0][box[1:]], mode, alpha[row])
    tensors = [torch.from_numpy(a) for a in (target, source, mask)]
    result = poisson_blend_boxes(*tensors, torch.from_numpy(sizes), mode=mode, alpha=torch.from_numpy(alpha))
    np.testing.assert_allclose(result, expected, atol=1e-9)
    single = poisson_blend_boxes(
        *[a.float() if a.is_floating_point() else a for a in tensors],
        torch.from_numpy(sizes),
        mode=mode,
        alpha=torch.from_numpy(alpha).float(),
    )
    for row, size in enumerate(sizes):
        box = (row, slice(None), *map(slice, size))
        np.testing.assert_allclose(single[box], expected[box], atol=1e-5)


def test_float32_is_exact_enough_for_large_boxes() -> None:
    target, source, mask = case((230, 301))
    expected = blend_box(target, source, mask)
    tensors = [torch.from_numpy(a) for a in (target.astype(np.float32), source.astype(np.float32), mask)]
    np.testing.assert_allclose(blend_box(*tensors), expected, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", [[(4, 5), (5, 3)], [(4, 3, 4), (3, 4, 4)]])
def test_gradients_of_the_torch_core(sizes: list[tuple[int, ...]], mode: str) -> None:
    generator = torch.Generator().manual_seed(4)
    padded = tuple(map(max, *sizes))
    boxes = torch.rand((2, 2, 1, *padded), generator=generator, dtype=torch.float64)
    mask = torch.rand((2, 1, *padded), generator=generator) < 0.7
    alpha = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=mode == "pii")
    target, source = (box.clone().requires_grad_() for box in boxes)

    def core(target: torch.Tensor, source: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return poisson_blend_boxes(target, source, mask, torch.tensor(sizes), mode, alpha)

    assert torch.autograd.gradcheck(core, (target, source, alpha))


def test_array_and_tensor_agree_in_a_larger_image() -> None:
    rng = np.random.RandomState(2)
    target = rng.rand(3, 30, 28)
    source, mask = rng.rand(3, 17, 13), rng.rand(17, 13) < 0.5
    for mode in MODES:
        array = poisson_blend(target, source, mask, (6, 11), mode=mode, alpha=0.5)
        tensor = poisson_blend(*map(torch.from_numpy, (target, source, mask)), (6, 11), mode=mode, alpha=0.5)
        assert isinstance(array[0], np.ndarray) and isinstance(tensor[0], torch.Tensor)
        assert array[0].dtype == np.float64 and array[1].dtype == bool and tensor[1].dtype == torch.bool
        np.testing.assert_allclose(tensor[0], array[0], atol=1e-10)
        np.testing.assert_array_equal(tensor[1], array[1])


@pytest.mark.parametrize("size", [(2, 5), (5, 1), (4, 2, 4)])
def test_a_box_of_two_voxels_is_refused(size: tuple[int, ...]) -> None:
    image = np.zeros((1, *[9] * len(size)))
    with pytest.raises(ValueError, match="3 voxels"):
        poisson_blend(image, np.zeros((1, *size)), np.ones(size, bool), (0,) * len(size))


@pytest.mark.parametrize("corner", [*product((-1, 0, 5), repeat=2)])
def test_a_box_that_leaves_the_image_is_refused(corner: tuple[int, int]) -> None:
    image, source, mask = np.zeros((1, 9, 8)), np.zeros((1, 4, 3)), np.ones((4, 3), bool)
    if -1 in corner:
        with pytest.raises(ValueError, match="leaves the image"):
            poisson_blend(image, source, mask, corner)
    else:
        assert poisson_blend(image, source, mask, corner)[0].shape == image.shape
        with pytest.raises(ValueError, match="leaves the image"):
            poisson_blend(image, source, mask, (corner[0], 6))


@pytest.mark.parametrize("argument", ["mode", "solver", "clip"])
def test_unknown_choices_are_refused(argument: str) -> None:
    image = np.zeros((1, 5, 5))
    with pytest.raises(ValueError, match=f"{argument} must be one of .*got 'other'"):
        poisson_blend(image, image, np.ones((5, 5), bool), (0, 0), **{argument: "other"})


def test_the_sparse_solver_refuses_tensors() -> None:
    image = torch.zeros(1, 5, 5)
    with pytest.raises(ValueError, match="NumPy"):
        poisson_blend(image, image, torch.ones(5, 5, dtype=torch.bool), (0, 0), solver="sparse")


def test_what_does_not_fit_is_refused() -> None:
    target, source, mask = np.random.RandomState(0).rand(3, 12, 12), np.ones((3, 5, 5)), np.ones((5, 5), dtype=bool)
    for arguments, message in (
        ((target, source[:1], mask), "a target of 3 channels needs a source"),
        ((target, source, mask[:4]), "a target of 3 channels needs a source"),
    ):
        with pytest.raises(ValueError, match=message):
            poisson_blend(*arguments, (2, 2))
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        poisson_blend(target, source, mask, (2, 2), "pii", 1.5)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_integers_are_blended_as_floating_point(as_tensor: bool) -> None:
    rng = np.random.RandomState(1)
    target, source = rng.randint(0, 256, (1, 14, 14)).astype(np.uint8), rng.randint(0, 256, (1, 7, 7)).astype(np.uint8)
    mask = np.ones((7, 7), dtype=bool)
    given = [torch.from_numpy(value) if as_tensor else value for value in (target, source, mask)]
    blended, _ = poisson_blend(*given, (3, 4))
    expected, _ = poisson_blend(target.astype(np.float64), source.astype(np.float64), mask, (3, 4))
    np.testing.assert_allclose(np.asarray(blended), expected, atol=1e-2)
