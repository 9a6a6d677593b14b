# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every corruption, whatever the image."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from catalog import CASES, CORRUPTIONS, FOREIGN_RANGE, UNBOUNDED, make, source_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_anomaly.transforms import BatchAnomaly, RandAnomalyd

MANY = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
SIZES = {2: st.tuples(*[st.integers(8, 40)] * 2), 3: st.tuples(*[st.integers(8, 18)] * 3)}


def smooth(shape: tuple[int, ...], channels: int, seed: int, dtype: Any) -> torch.Tensor:
    """A smooth random image, in [0, 1], or in 0..255 for integers."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, *[4] * len(shape), generator=generator)
    mode = "bicubic" if len(shape) == 2 else "trilinear"
    image = torch.nn.functional.interpolate(coarse, size=shape, mode=mode)[0].clamp(0, 1)
    return image.to(dtype) if dtype.is_floating_point else (image * 255).to(dtype)


def check(name: str, image: torch.Tensor, result: dict[str, Any], value_range: tuple[int, int] = (0, 1)) -> None:
    """The contract of a corruption's result."""
    clean = image.to(torch.float32)
    out, label, support = result["image"], result["label"], result["support"]
    assert out.shape == image.shape and out.dtype == torch.float32
    assert label.shape == support.shape == (1, *image.shape[1:])
    assert support.dtype == torch.bool and label.dtype == torch.float32
    torch.testing.assert_close(torch.as_tensor(result["clean"]), clean, rtol=0, atol=0)
    assert bool(torch.isfinite(out).all()) and bool(torch.isfinite(label).all())
    assert float(label.min()) >= 0 and float(label.max()) <= 1
    assert bool((support == (label > 0)).all())
    untouched = (label == 0).expand_as(out)
    assert bool((out[untouched] == clean[untouched]).all())
    changed = bool((out != clean).any())
    assert result["target"] == int(changed)
    assert changed or not bool(support.any())
    if name in FOREIGN_RANGE:
        assert float(out.min()) >= value_range[0] and float(out.max()) <= value_range[1]
    elif name not in UNBOUNDED:
        for channel, before in zip(out, clean, strict=True):
            assert float(channel.min()) >= float(before.min()) and float(channel.max()) <= float(before.max())
    assert isinstance(json.loads(result["params"]), list)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_contract(name: str, dims: int) -> None:
    made = []

    @MANY
    @given(
        SIZES[dims],
        st.sampled_from([1, 2, 3]),
        st.sampled_from([torch.float32, torch.float64, torch.float16, torch.uint8, torch.int16]),
        st.integers(0, 2**31 - 1),
    )
    def run(shape: tuple[int, ...], channels: int, dtype: Any, seed: int) -> None:
        image = smooth(shape, channels, seed % 1000, dtype)
        given_image, source = image.clone(), source_of(name, image)
        value_range = (0, 1) if dtype.is_floating_point else (0, 255)
        transform = make(name, value_range=value_range).set_random_state(seed)
        result = transform(image, None, source)
        check(name, image, result, value_range)
        assert bool((image == given_image).all())  # the input stays as it is
        again = make(name, value_range=value_range).set_random_state(seed)(image, None, source)
        assert bool((again["image"] == result["image"]).all()) and again["params"] == result["params"]
        made.append(result["target"])

    run()
    assert sum(made) > 0


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_batch_is_as_image_by_image(name: str, dims: int) -> None:
    shape = (40, 32) if dims == 2 else (18, 16, 20)
    images = torch.stack([smooth(shape, 2, seed, torch.float32) for seed in range(6)])
    pastes = CORRUPTIONS[name][1]
    given = {"source": list(images.flip(-1))} if pastes else {}
    single = make(name, **given).set_random_state(5)
    expected = [single(image) for image in images]
    batch = BatchAnomaly(make(name, **given)).set_random_state(5)(images)
    for row, sample in enumerate(expected):
        torch.testing.assert_close(batch["image"][row], sample["image"], rtol=0, atol=2e-3)
        assert int(batch["target"][row]) == sample["target"] and int(batch["task"][row]) == sample["task"]
        assert batch["params"][row] == sample["params"]
    assert batch["target"].any()


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_constant_images(name: str, dims: int) -> None:
    image = torch.full((1, *[24] * dims), 0.5)
    result = make(name).set_random_state(0)(image, None, source_of(name, image))
    check(name, image, result)
    if name not in UNBOUNDED:
        assert result["target"] == 0


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_tiny_images(name: str, dims: int) -> None:
    for size in (1, 2, 3, 5):
        image = smooth((size + 3, *[size] * (dims - 1)), 1, size, torch.float32)
        transform = make(name, max_attempts=20) if name != "mixture" else make(name)
        for seed in range(3):
            check(name, image, transform.set_random_state(seed)(image, None, source_of(name, image)))


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(name: str, dims: int, bad: float) -> None:
    image = torch.rand(1, *[16] * dims)
    image[(0, *[3] * dims)] = bad
    broken = MetaTensor(image, meta={"filename_or_obj": "broken.png"})
    with pytest.raises(ValueError, match=r'key "scan".*broken\.png.*NaN or infinite'):
        RandAnomalyd("scan", make(name))({"scan": broken})


@pytest.mark.parametrize("name", [name for name, (_, _, dims) in CORRUPTIONS.items() if dims == (2,)])
def test_flat_corruptions_refuse_volumes(name: str) -> None:
    with pytest.raises(ValueError, match=r"2D images \(C, \*S\), got one of shape \(1, 8, 8, 8\)"):
        make(name)(torch.rand(1, 8, 8, 8))


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_missing_channel_axis(name: str) -> None:
    with pytest.raises(ValueError, match="EnsureChannelFirst"):
        make(name)(torch.rand(16, 16))


@pytest.mark.parametrize("name", [name for name, (_, pastes, _) in CORRUPTIONS.items() if pastes and name != "mixture"])
def test_pasting_without_a_source(name: str) -> None:
    with pytest.raises(ValueError, match="source= .a dataset., the sample's source_key"):
        make(name)(torch.rand(1, 32, 32))


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_meta_data_and_arrays(name: str, dims: int) -> None:
    image = smooth((20,) * dims, 1, 3, torch.float32)
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    scan = MetaTensor(image, affine=affine, meta={"filename_or_obj": "scan.nii.gz"})
    with_meta = make(name).set_random_state(1)(scan, None, source_of(name, image))
    bare = make(name).set_random_state(1)(image.numpy(), None, source_of(name, image))
    for key in ("image", "clean", "label", "support"):
        assert isinstance(with_meta[key], MetaTensor) and not isinstance(bare[key], MetaTensor)
        assert bool((with_meta[key].affine == affine).all())
        assert with_meta[key].meta["filename_or_obj"] == "scan.nii.gz"
        torch.testing.assert_close(with_meta[key].as_tensor(), bare[key])


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_foreground_restricts_or_is_ignored(name: str) -> None:
    image = smooth((48, 40), 1, 7, torch.float32)
    mask = np.zeros((1, 48, 40), dtype=bool)
    mask[:, 8:40, 6:34] = True
    transform = make(name).set_random_state(0)
    results = [transform(image, mask, source_of(name, image)) for _ in range(12)]
    assert any(result["target"] for result in results)
    inside = torch.from_numpy(mask)
    shares = [float((r["support"] & inside).sum() / r["support"].sum()) for r in results if r["support"].any()]
    assert np.mean(shares) > 0.5


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_foreground_of_another_size(name: str) -> None:
    image = torch.rand(1, 16, 16)
    with pytest.raises(ValueError, match=r"foreground is of size \(8, 8\), but its image of \(16, 16\)"):
        for _ in range(20):  # a corruption may leave an image alone
            make(name)(image, torch.ones(1, 8, 8), source_of(name, image))
