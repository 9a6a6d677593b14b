# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image
from skimage import exposure

from monai_anomaly.transforms.synthesis import textures
from monai_anomaly.transforms.synthesis.textures import read_texture, shuffle_patches


def write(folder, name, values):
    Image.fromarray(np.asarray(values)).save(folder / name)
    return folder


@pytest.mark.parametrize("size", [(16, 24), (8, 8), (64, 8)])
def test_patches_are_shuffled_whole(size):
    image = np.arange(2 * np.prod(size)).reshape(2, *size)
    shuffled = shuffle_patches(np.random.RandomState(0), image, 8)

    def patches(values):
        high, wide = size[0] // 8, size[1] // 8
        return [
            values[:, a * high : (a + 1) * high, b * wide : (b + 1) * wide].tobytes()
            for a in range(8)
            for b in range(8)
        ]

    assert sorted(patches(shuffled)) == sorted(patches(image))
    moved = np.mean([a != b for a, b in zip(patches(shuffled), patches(image), strict=True)])
    assert moved > 0.9


@pytest.mark.parametrize("size", [(19, 30), (5, 7), (1, 3), (1, 1), (9, 9)])
def test_shuffling_any_size_takes_values_of_the_image(size):
    image = np.random.RandomState(0).permutation(int(np.prod(size))).reshape(1, *size)
    shuffled = shuffle_patches(np.random.RandomState(0), image, 8)
    assert shuffled.shape == image.shape
    assert set(shuffled.ravel()) <= set(image.ravel())


def test_textures_are_resized_without_swapping_their_axes(tmp_path):
    columns = np.zeros((10, 10, 3), np.uint8)
    columns[:, 5:] = (255, 128, 0)
    path = str(write(tmp_path, "a.png", columns) / "a.png")
    texture = read_texture(path, (12, 40), True)
    assert texture.shape == (3, 12, 40)
    assert (texture[:, :, :16] == 0).all()
    assert (texture[:, :, 24:] == np.array([255, 128, 0])[:, None, None]).all()
    grey = read_texture(path, (12, 40), False)
    assert grey.shape == (1, 12, 40)
    assert int(grey[0, 0, -1]) == pytest.approx(0.299 * 255 + 0.587 * 128, abs=1)


def test_textures_of_16_bits_keep_their_contrast(tmp_path):
    values = np.linspace(1000, 5000, 64).reshape(8, 8).astype(np.uint16)
    path = str(write(tmp_path, "a.png", values) / "a.png")
    expected = (values - 1000.0) * 255 / 4000
    np.testing.assert_allclose(read_texture(path, (8, 8), False)[0], expected, atol=1)


def test_textures_are_read_once(tmp_path):
    path = write(tmp_path, "a.png", np.full((9, 9), 10, np.uint8)) / "a.png"
    first = read_texture(str(path), (5, 6), False)
    path.unlink()
    assert read_texture(str(path), (5, 6), False) is first
    with pytest.raises(ValueError, match="read-only"):
        first += 1


# the changes of its look


def grey_texture(channels=1):
    return np.random.RandomState(3).randint(0, 256, (channels, 16, 20)).astype(np.uint8)


@pytest.mark.parametrize("change", textures.AUGMENTATIONS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("texture", [grey_texture(), grey_texture(4), np.full((1, 1, 1), 7, np.uint8)], ids=str)
def test_every_change_keeps_size_and_type_and_does_something(change, texture):
    before = texture.copy()
    results = [change(np.random.RandomState(seed), texture) for seed in range(8)]
    assert {(result.shape, result.dtype.name) for result in results} == {(texture.shape, "uint8")}
    assert np.array_equal(texture, before)
    if texture.size > 1:
        assert any(not np.array_equal(result, texture) for result in results)


def test_changes_are_what_they_are_called():
    texture = grey_texture()
    rng = np.random.RandomState
    assert np.array_equal(textures._inversion(rng(0), texture), 255 - texture)
    for seed in range(6):
        bits = rng(seed).randint(1, 9)
        assert np.array_equal(textures._posterization(rng(seed), texture), texture // 2 ** (8 - bits) * 2 ** (8 - bits))
        drawn = rng(seed)
        threshold, happens = drawn.randint(32, 129), drawn.rand() < 0.5
        expected = [255 - v if v >= threshold and happens else v for v in texture.ravel().astype(int)]
        assert textures._solarization(rng(seed), texture).ravel().tolist() == expected
        gamma = rng(seed).uniform(0.5, 2)
        expected = exposure.adjust_gamma(texture / 255, gamma) * 255
        np.testing.assert_allclose(textures._gamma(rng(seed), texture), expected, atol=0.51)
        drawn = rng(seed)
        expected = np.clip(texture * drawn.uniform(0.8, 1.2) + drawn.uniform(-30, 30), 0, 255)
        np.testing.assert_allclose(textures._brightness(rng(seed), texture), expected, atol=0.51)
    narrow = (texture // 4 + 60).astype(np.uint8)
    equal = textures._equalization(rng(0), narrow)
    assert equal.std() > 2 * narrow.std()
    assert (np.diff(equal.ravel()[np.argsort(narrow.ravel(), kind="stable")].astype(int)) >= 0).all()
    wide = textures._contrast(rng(0), narrow)
    assert (wide.min(), wide.max()) == (0, 255)


def test_sharpness_goes_either_way():
    edge = np.zeros((1, 9, 9), np.uint8) + np.uint8(60)
    edge[..., 5:] = 180
    slopes = []
    for seed in range(20):
        factor = np.random.RandomState(seed).uniform(0, 2)
        changed = textures._sharpness(np.random.RandomState(seed), edge)
        slopes.append((factor, int(changed[0, 4, 5]) - int(changed[0, 4, 4])))
    assert all((slope > 120) == (factor > 1.02) for factor, slope in slopes if abs(factor - 1) > 0.05)


def test_a_rotated_texture_has_no_black_corners():
    texture = np.full((1, 20, 30), 200, np.uint8)
    assert (textures._rotation(np.random.RandomState(0), texture) == 200).all()


def test_hue_and_saturation_are_those_of_hsv():
    texture = grey_texture(3)
    result = textures._hue_and_saturation(np.random.RandomState(0), texture)
    turn, more = np.random.RandomState(0).randint(-50, 51, 2) / 255
    for before, after in zip(texture.reshape(3, -1).T, result.reshape(3, -1).T, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        slow = colorsys.hsv_to_rgb((hue + turn) % 1, np.clip(saturation + more, 0, 1), value)
        np.testing.assert_allclose(after / 255, slow, atol=0.04)
