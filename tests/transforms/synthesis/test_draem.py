# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from monai_anomaly.functional.noise import gradient_noise
from monai_anomaly.transforms.synthesis import draem
from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.draem import (
    PerlinMask,
    RandPerlinTexture,
    RandPerlinTextured,
)
from monai_anomaly.transforms.synthesis.plan import Frame
from monai_anomaly.transforms.synthesis.textures import read_texture


def textured(size=(48, 64), channels=1, seed=0):
    """Images in [0, 1] that reach both ends."""
    rng = np.random.RandomState(seed)
    values = np.stack([ndimage.gaussian_filter(rng.normal(size=size), 1) for _ in range(channels)])
    return torch.from_numpy((values - values.min()) / np.ptp(values)).float()


def write(folder, name, values):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(folder / name)
    return folder


def params_of(result):
    (params,) = json.loads(result["params"])
    return params


@pytest.fixture
def plain(tmp_path):
    """A folder with one texture of grey level 51, which is 0.2."""
    return write(tmp_path / "plain", "a.png", np.full((20, 30), 51, np.uint8))


def always(**kwargs):
    """An anomaly in every image: an empty mask is drawn again."""
    return RandPerlinTexture(**{"prob": 1.0, "max_attempts": 50, **kwargs})


# the mask


@pytest.mark.parametrize("size", [(64, 64), (37, 90)])
def test_the_mask_is_rotated_noise_above_a_threshold(size):
    """Oracle: the noise read at pixels turned about the center, zero outside."""
    frame = Frame(torch.zeros(1, *size))
    for seed in range(10):
        mask = PerlinMask()(np.random.RandomState(seed), frame)
        rng = np.random.RandomState(seed)
        powers = [rng.randint(0, min(5, int(np.log2(n)) - 1) + 1) for n in size]
        noise = np.sqrt(2) * gradient_noise(rng, size, [2**power for power in powers])
        angle = rng.uniform(-np.pi / 2, np.pi / 2)
        center = (np.array(size) - 1)[:, None] / 2
        points = np.indices(size).reshape(2, -1) - center
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        slow = ndimage.map_coordinates(noise, turn @ points + center, order=1).reshape(size) > 0.5
        assert np.mean(mask != slow) < 1e-3  # the very edge may round either way
        assert mask.any() == slow.any()


def test_lattices_are_drawn_for_each_axis_by_itself(monkeypatch):
    seen = []
    monkeypatch.setattr(draem, "gradient_noise", lambda rng, shape, counts: seen.append(counts) or np.zeros(shape))
    rng = np.random.RandomState(0)
    for _ in range(1200):
        PerlinMask()(rng, Frame(torch.zeros(1, 64, 128)))
    counts = np.array([[np.sum(np.array(seen)[:, axis] == 2**k) for k in range(6)] for axis in range(2)])
    assert counts.sum() == 2400
    assert all(stats.chisquare(row).pvalue > 0.01 for row in counts)
    assert abs(np.corrcoef(np.array(seen).T)[0, 1]) < 0.1


def test_noise_is_never_sampled_on_its_lattice_alone():
    """Of 32 intervals on 8 pixels every pixel would be a lattice point, and every mask empty."""
    rng = np.random.RandomState(0)
    masks = [PerlinMask(scales=(5, 5))(rng, Frame(torch.zeros(1, 8, 8))) for _ in range(50)]
    assert np.mean([mask.any() for mask in masks]) > 0.5


@pytest.mark.parametrize("size", [(37, 53), (5, 7), (1, 9), (2, 2), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_works(size, channels):
    image = torch.from_numpy(np.random.RandomState(0).rand(channels, *size)).float()
    transform = RandPerlinTexture(prob=1).set_random_state(0)
    for _ in range(8):
        result = transform(image)
        assert torch.isfinite(result["image"]).all()
        assert result["target"] == int(result["label"].any())


def test_only_two_dimensions():
    with pytest.raises(ValueError, match="defined for 2D images"):
        RandPerlinTexture()(torch.zeros(1, 4, 4, 4))


@pytest.mark.parametrize(("threshold", "prob"), [(0.5, 0.5), (0.7, 1.0)])
def test_some_images_stay_and_an_empty_mask_is_no_anomaly(threshold, prob):
    image = textured((32, 32))
    mask, frame = PerlinMask(threshold=threshold), Frame(image)
    made = np.mean([mask(np.random.RandomState(seed), frame).any() for seed in range(1000)])
    assert 0.2 < made < 0.97
    transform = RandPerlinTexture(threshold=threshold, prob=prob).set_random_state(0)
    results = [transform(image) for _ in range(300)]
    assert stats.binomtest(sum(result["target"] for result in results), 300, prob * made).pvalue > 0.01
    for result in results:
        assert result["target"] == int(result["label"].any())
        if not result["target"]:
            assert torch.equal(result["image"], image)


def test_half_of_the_images_stay_by_default():
    assert RandPerlinTexture().prob == 0.5


def test_nothing_happens_outside_the_foreground():
    foreground = torch.zeros(1, 48, 64)
    foreground[:, 10:40, 5:50] = 1
    transform = always().set_random_state(0)
    for _ in range(10):
        result = transform(textured(), foreground)
        assert result["target"] == 1
        assert not (result["label"] * (1 - foreground)).any()


# the blend


def test_the_texture_covers_the_image_with_its_opacity(plain):
    image = textured()
    transform = always(texture_dir=plain, augmentations=0).set_random_state(0)
    opacity = []
    for _ in range(60):
        result = transform(image)
        mask, share = result["support"], params_of(result)["weight"]
        beta = 1 - share
        expected = image * ~mask + share * 0.2 * mask + beta * image * mask
        torch.testing.assert_close(result["image"], expected, atol=1e-6, rtol=0)
        opacity.append(share)
    assert stats.kstest(opacity, stats.uniform(0.2, 0.8).cdf).pvalue > 0.01


def test_the_support_is_the_mask_where_something_changed(plain):
    image = textured()
    result = always(texture_dir=plain, augmentations=0, max_attempts=1).set_random_state(1)(image)
    rng = np.random.RandomState(1)
    rng.rand()  # whether the image is corrupted at all
    mask = torch.from_numpy(PerlinMask()(rng, Frame(image)))
    assert mask.any()
    assert torch.equal(result["support"][0], mask & (result["image"] != image).any(0))
    assert float((mask & ~result["support"][0]).float().mean()) < 0.01


def test_a_texture_may_be_brighter_than_the_image(plain):
    """Clipped to the value range, and not to the range of this image."""
    dark = textured() * 0.1
    result = always(texture_dir=plain, augmentations=0, beta=(0, 0)).set_random_state(0)(dark)
    assert float(result["image"].max()) == pytest.approx(0.2)


def test_beta_of_the_paper(plain):
    transform = always(texture_dir=plain, beta=(0.1, 1.0)).set_random_state(0)
    shares = [params_of(transform(textured()))["weight"] for _ in range(60)]
    assert stats.kstest(shares, stats.uniform(0, 0.9).cdf).pvalue > 0.01


@pytest.mark.parametrize("texture", ["self", "source"])
def test_the_value_range_is_that_of_the_image(texture):
    """The same image in [-1, 1] and the same seed: the same result in [-1, 1]."""
    image, other = textured(), textured(seed=1)
    one = always(texture=texture).set_random_state(2)(image, None, other)
    two = always(texture=texture, value_range=(-1, 1)).set_random_state(2)(2 * image - 1, None, 2 * other - 1)
    close = (two["image"] - (2 * one["image"] - 1)).abs() < 1e-5
    assert float(close.float().mean()) > 0.999  # 8 bits may round either way
    assert float(two["image"].min()) >= -1


# the texture


def test_self_needs_no_source_and_ignores_the_batch():
    image = textured()
    result = always().set_random_state(0)(image)
    assert params_of(result)["source"] == -1
    with_source = always().set_random_state(0)(image, None, torch.zeros(1, 48, 64))
    assert torch.equal(with_source["image"], result["image"])


def test_another_image_is_the_texture_resized_and_with_its_channels_matched():
    images = [torch.full((1, 20, 30), 0.2), torch.full((1, 7, 9), 0.8)]
    transform = always(source=images, augmentations=0, beta=(0, 0)).set_random_state(0)
    seen = set()
    for _ in range(12):
        result = transform(textured(channels=3))
        index = params_of(result)["source"]
        inside = result["image"][:, result["support"][0]]
        torch.testing.assert_close(inside, torch.full_like(inside, [0.2, 0.8][index]))
        seen.add(index)
    assert seen == {0, 1}
    with pytest.raises(ValueError, match="source 0 is 3D"):
        always(source=[torch.zeros(1, 4, 4, 4)])(textured())
    with pytest.raises(ValueError, match="give source="):
        always(texture="source")(textured())


def test_a_folder_of_textures_with_subfolders(tmp_path):
    write(tmp_path, "b.JPG", np.full((9, 9), 100, np.uint8))
    write(tmp_path / "deep", "a.png", np.full((9, 9), 200, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    transform = always(texture_dir=tmp_path, augmentations=0, beta=(0, 0)).set_random_state(0)
    for _ in range(10):
        result = transform(textured())
        inside = result["image"][result["support"]]
        level = [100, 200][params_of(result)["source"]] / 255
        torch.testing.assert_close(inside, torch.full_like(inside, level))


def test_images_of_four_channels_get_grey_textures(plain):
    result = always(texture_dir=plain, augmentations=0, beta=(0, 0)).set_random_state(0)(textured(channels=4))
    inside = result["image"][:, result["support"][0]]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.2))


def test_an_empty_or_missing_folder_and_a_broken_file_are_named(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(ValueError, match=f"texture_dir '{folder}' holds no texture"):
            RandPerlinTexture(texture_dir=folder)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.png' cannot be read"):
        always(texture_dir=tmp_path)(textured())


@pytest.mark.parametrize(("channels", "known"), [(1, 9), (3, 10), (4, 9)])
def test_three_different_changes_are_made_and_hue_for_color_alone(channels, known):
    transform = always().set_random_state(0)
    image = textured((24, 24), channels)
    chosen = [params_of(transform(image))["augmentations"] for _ in range(120)]
    assert all(len(names) == 3 == len(set(names)) for names in chosen)
    assert len({name for names in chosen for name in names}) == known
    assert any("hue_and_saturation" in names for names in chosen) == (channels == 3)


# batches and dictionaries


@pytest.mark.parametrize(("texture", "channels"), [("self", 1), ("self", 3), ("folder", 3)])
def test_a_batch_is_its_images_one_by_one(texture, channels, plain):
    arguments = {"texture_dir": plain} if texture == "folder" else {"texture": texture}
    images = torch.stack([textured((40, 56), channels, seed) for seed in range(6)])
    batch = BatchAnomaly(RandPerlinTexture(**arguments)).set_random_state(2)(images)
    single = RandPerlinTexture(**arguments).set_random_state(2)
    for row, image in enumerate(images):
        one = single(image)
        torch.testing.assert_close(batch["image"][row], one["image"], atol=1e-6, rtol=0)
        assert torch.equal(batch["label"][row], one["label"])
        assert (int(batch["target"][row]), batch["params"][row]) == (one["target"], one["params"])
    assert 0 < int(batch["target"].sum()) < 6


def test_other_images_of_a_batch_are_textures():
    images = torch.stack([torch.full((1, 16, 16), value) for value in (0.2, 0.8)])
    corruption = always(texture="source", augmentations=0, beta=(0, 0))
    result = BatchAnomaly(corruption).set_random_state(0)(images)
    assert result["target"].tolist() == [1, 1]
    for row, value in enumerate((0.8, 0.2)):
        inside = result["image"][row][result["support"][row]]
        torch.testing.assert_close(inside, torch.full_like(inside, value))


def test_the_dictionary_version_takes_a_texture_from_the_sample():
    sample = {"image": textured(), "other": torch.full((1, 48, 64), 0.4)}
    transform = RandPerlinTextured(
        "image", source_key="other", texture="source", prob=1, max_attempts=50, augmentations=0, beta=(0, 0)
    ).set_random_state(0)
    result = transform(sample)
    inside = result["image"][result["support"]]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texture": "dtd"}, "texture must be one of"),
        ({"augmentations": 11}, "augmentations must be in 0..9"),
        ({"beta": (0.5, 1.5)}, "beta must be two ascending"),
        ({"scales": (-1, 5)}, "scales must be two ascending"),
        ({"threshold": 1.0}, "threshold must be in"),
        ({"max_angle": -1}, "max_angle must be 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandPerlinTexture(**arguments)


def test_fundus_images_get_a_visible_texture(shared_data):
    """On a real color image: changes stay in the range and are seen by the eye, on average."""
    file = sorted((shared_data / "fundus" / "images").iterdir())[0]
    image = torch.from_numpy(read_texture(str(file), (96, 96), True) / np.float32(255))
    transform = always().set_random_state(0)
    changes = []
    for _ in range(10):
        result = transform(image)
        changes.append(float((result["image"] - image).abs().mean(0)[result["support"][0]].mean()))
        assert float(result["image"].min()) >= 0
        assert float(result["image"].max()) <= 1
    assert np.mean(changes) > 0.05
