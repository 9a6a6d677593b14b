# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.interpolate import RegularGridInterpolator

from monai_anomaly.transforms.synthesis.batch import BatchAnomaly
from monai_anomaly.transforms.synthesis.coarse_noise import RandCoarseNoise, RandCoarseNoised, above_minimum


def brains(size=(24, 20), channels=2, count=1, seed=0):
    """Images in [0, 1]: background 0, and an object with a different size in each."""
    rng = np.random.RandomState(seed)
    images = np.zeros((count, channels, *size), dtype=np.float32)
    for row, image in enumerate(images):
        inside = tuple(slice(2 + row % 3, n - 3) for n in size)
        image[(slice(None), *inside)] = rng.uniform(0.3, 0.7, image[(slice(None), *inside)].shape)
    return torch.from_numpy(images) if count > 1 else torch.from_numpy(images[0])


def slow_noise(seed, channels, size, resolution=16, std=0.2):
    """Noise of one image, drawn in the order of the transform and interpolated point by point."""
    rng = np.random.RandomState(seed)
    rng.rand()  # whether the image is corrupted at all
    grid = rng.normal(0, std, (channels, *(resolution,) * len(size)))
    shift = [rng.randint(n) for n in size]
    axes = [np.linspace(0, 1, resolution)] * len(size)
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in size], indexing="ij"), axis=-1)
    fields = [np.roll(RegularGridInterpolator(axes, part)(points), shift, range(len(size))) for part in grid]
    return torch.from_numpy(np.stack(fields)).float()


@pytest.mark.parametrize("size", [(24, 20), (9, 12, 10)])
def test_noise_is_added_inside_the_object_alone(size):
    image = brains(size)
    result = RandCoarseNoise().set_random_state(5)(image)
    mask = image.sum(0, keepdim=True) > 0.01
    torch.testing.assert_close(result["image"], image + slow_noise(5, 2, size) * mask, atol=1e-5, rtol=0)
    assert torch.equal(result["label"] == 1, mask)
    assert torch.equal(result["support"], mask)
    assert torch.equal(result["clean"], image)
    assert result["target"] == 1


def test_nothing_is_clipped_by_default():
    image = brains((32, 32), 1)
    result = RandCoarseNoise(noise_std=1.0).set_random_state(0)(image)
    assert float(result["image"].min()) < 0
    assert float(result["image"].max()) > 1
    clipped = RandCoarseNoise(noise_std=1.0, clip=(0, 1)).set_random_state(0)(image)
    torch.testing.assert_close(clipped["image"], result["image"].clamp(0, 1))


def test_centered_images_get_the_noise_scaled_and_not_shifted():
    """The same image in [-1, 1] and the same seed: the same result in [-1, 1], and noise of mean zero."""
    image = brains((40, 40), 1)
    plain = RandCoarseNoise().set_random_state(1)(image)
    centered = RandCoarseNoise(value_range=(-1, 1)).set_random_state(1)(2 * image - 1)
    torch.testing.assert_close(centered["image"], 2 * plain["image"] - 1, atol=1e-5, rtol=0)
    assert torch.equal(centered["label"], plain["label"])
    noise = [RandCoarseNoise(value_range=(-1, 1)).set_random_state(s)(2 * image - 1) for s in range(30)]
    change = torch.stack([(r["image"] - r["clean"])[r["support"]].mean() for r in noise])
    assert abs(float(change.mean())) < 4 * float(change.std()) / 30**0.5
    assert float(change.std()) < 0.2


def test_the_published_port_doubles_the_noise_and_shifts_it():
    image = brains((40, 40), 1)
    plain = RandCoarseNoise().set_random_state(1)(image)
    ported = RandCoarseNoise(value_range=(-1, 1), compat="upd").set_random_state(1)(2 * image - 1)
    noise = plain["image"] - image
    expected = torch.where(plain["support"], (noise - 0.5) * 2, 0)
    torch.testing.assert_close(ported["image"] - (2 * image - 1), expected, atol=1e-5, rtol=0)
    unit = RandCoarseNoise(compat="upd").set_random_state(1)(image)
    assert torch.equal(unit["image"], plain["image"])


def test_channels_have_their_own_noise_or_share_it():
    image = brains((24, 24), 3)
    own = RandCoarseNoise().set_random_state(0)(image)
    shared = RandCoarseNoise(per_channel=False).set_random_state(0)(image)
    change = shared["image"] - image
    torch.testing.assert_close(change[1:], change[:1].expand(2, -1, -1), atol=1e-6, rtol=0)
    assert float((own["image"] - image).diff(dim=0).abs().max()) > 0.1


@pytest.mark.parametrize("size", [(24, 20), (9, 12, 10)])
def test_a_batch_is_its_images_one_by_one(size):
    images = brains(size, count=4)
    batch = BatchAnomaly(RandCoarseNoise(prob=0.7)).set_random_state(3)(images)
    single = RandCoarseNoise(prob=0.7).set_random_state(3)
    for row, image in enumerate(images):
        one = single(image)
        torch.testing.assert_close(batch["image"][row], one["image"], atol=1e-6, rtol=0)
        assert torch.equal(batch["label"][row], one["label"])
        assert (int(batch["target"][row]), batch["params"][row]) == (one["target"], one["params"])
    assert 0 < int(batch["target"].sum()) < 4


def test_each_sample_of_a_batch_has_its_own_shift():
    params = BatchAnomaly(RandCoarseNoise()).set_random_state(0)(brains((64, 64), count=6))["params"]
    assert len({tuple(json.loads(text)[0]["shift"]) for text in params}) == 6


def test_an_image_without_signal_stays():
    for image in (torch.zeros(2, 8, 8), torch.full((2, 8, 8), 0.004)):
        result = RandCoarseNoise().set_random_state(0)(image)
        assert torch.equal(result["image"], image)
        assert result["target"] == 0
        assert not result["label"].any()


def test_the_foreground_can_be_given_made_or_left_out():
    image = brains((16, 16), 1)
    given = torch.zeros(1, 16, 16)
    given[:, 4:6, 5:9] = 1
    assert torch.equal(RandCoarseNoise()(image, given)["label"], given)
    made = RandCoarseNoise(foreground=partial(above_minimum, threshold=0.5))(image)
    assert torch.equal(made["label"] == 1, image > 0.5)
    assert RandCoarseNoise(foreground=None)(image)["label"].all()
    assert RandCoarseNoise()(image, torch.zeros(1, 16, 16))["target"] == 0
    with pytest.raises(ValueError, match="is empty"):
        RandCoarseNoise(on_empty="raise")(image, torch.zeros(1, 16, 16))


def test_the_signal_is_summed_over_the_channels_above_the_lower_end():
    image = torch.tensor([0.004, 0.006, 0.5]).reshape(1, 1, 3).repeat(2, 1, 1)
    assert above_minimum(image).flatten().tolist() == [False, True, True]
    assert above_minimum(10 * image - 5, (-5, 5)).flatten().tolist() == [False, True, True]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (2, 1, 3)])
def test_any_size_works(size):
    result = RandCoarseNoise()(torch.full((1, *size), 0.5))
    assert torch.isfinite(result["image"]).all()
    assert result["target"] == 1


def test_the_dictionary_version_keeps_the_clean_image_as_target():
    image = MetaTensor(brains((16, 16), 1), meta={"filename_or_obj": "a.png"})
    sample = RandCoarseNoised("image", noise_res=4, clean_key="restoration").set_random_state(0)({"image": image})
    assert torch.equal(sample["restoration"], image)
    assert not torch.equal(sample["image"], image)
    assert sample["image"].meta["filename_or_obj"] == "a.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_res": 0}, "resolution must be 1 or more"),
        ({"noise_std": 0.0}, "std must be above 0"),
        ({"foreground": "brain"}, "foreground must be one of"),
        ({"compat": "dae"}, "compat must be one of"),
        ({"value_range": (1, 0)}, "value_range must be two ascending"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandCoarseNoise(**arguments)


def test_a_resolution_for_other_axes_is_refused():
    with pytest.raises(ValueError, match="each of 2 axes"):
        RandCoarseNoise(noise_res=(4, 4, 4))(brains((8, 8), 1))
