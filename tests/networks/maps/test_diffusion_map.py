# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from random_denoiser import random_denoiser
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from monai_anomaly.functional import ssim_error
from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import RESIDUALS, DiffusionMap, DiffusionSampler, RestorationOutput
from monai_anomaly.networks.maps.diffusion_map import above_background, encoder_features

IMAGES = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def _map(members: int = 3, residual: str = "l1", background: float | None = None, **sampling: Any) -> DiffusionMap:
    sampler = DiffusionSampler(**{"num_steps": 2, **sampling})
    return DiffusionMap(NetworkFolds(random_denoiser, members), sampler, residual, background).eval()


def _restorations(network: DiffusionMap, images: Tensor, members: list[int]) -> np.ndarray:
    """Of each member and sample, (members, samples, B, C, *S)."""
    with torch.no_grad():
        made = [network.sampler(network.network.members[i], images, i).numpy() for i in members]
    return np.stack(made).astype(np.float64)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("residual", "power"), [("l1", 1), ("l2", 2)])
def test_map_restoration_and_spread_pixel_by_pixel(residual: str, power: int, samples: int) -> None:
    network = _map(residual=residual, num_samples=samples)
    result = network.predict(IMAGES)
    assert isinstance(result, RestorationOutput)
    made = _restorations(network, IMAGES, [0, 1, 2]).reshape(3 * samples, *IMAGES.shape)
    for row, i, j in np.ndindex(3, 16, 16):
        errors, means, deviations = [], [], []
        for channel in range(2):
            values = made[:, row, channel, i, j].tolist()
            errors += [abs(value - float(IMAGES[row, channel, i, j])) ** power for value in values]
            means.append(sum(values) / len(values))
            deviations.append(math.sqrt(sum((value - means[-1]) ** 2 for value in values) / len(values)))
        place = (row, 0, i, j)
        assert float(result.anomaly_map[place]) == pytest.approx(sum(errors) / len(errors), abs=1e-5)
        assert float(result.spread[place]) == pytest.approx(sum(deviations) / 2, abs=1e-5)
        assert result.reconstruction[row, :, i, j].tolist() == pytest.approx(means, abs=1e-5)


def test_one_restoration_has_no_spread() -> None:
    result = _map(members=1).predict(IMAGES)
    assert torch.equal(result.spread, torch.zeros(3, 1, 16, 16))
    assert float(_map(members=2).predict(IMAGES).spread.min()) >= 0


def test_structural_residual_is_that_of_scikit_image() -> None:
    network = _map(members=2, residual="ssim")
    result = network.predict(IMAGES).anomaly_map
    made, inside = _restorations(network, IMAGES, [0, 1])[:, 0], slice(5, -5)
    settings: dict[str, Any] = {"data_range": 2.0, "gaussian_weights": True, "sigma": 1.5, "full": True}
    for row in range(3):
        maps = []
        for member, channel in np.ndindex(2, 2):
            images = made[member, row, channel] + 1, IMAGES[row, channel].double().numpy() + 1  # means not negative
            maps.append(1 - structural_similarity(*images, use_sample_covariance=False, **settings)[1])
        expected = np.mean(maps, 0)[inside, inside]
        np.testing.assert_allclose(result[row, 0, inside, inside], expected, atol=1e-4)


def test_published_residual_is_taken_of_each_restoration_before_the_mean() -> None:
    network = _map(members=2, residual="ssim_upd")
    result = network.predict(IMAGES).anomaly_map
    made = torch.from_numpy(_restorations(network, IMAGES, [0, 1])[:, 0]).float()
    maps = torch.stack([ssim_error(restored, IMAGES, compat="upd") for restored in made]).mean((0, 2))
    torch.testing.assert_close(result[:, 0], maps, rtol=1e-3, atol=1e-6)
    assert float(result.max()) < 0.2  # the constants of images in [0, 255] leave little


def _by_parts(network: Any, image: Tensor) -> list[Tensor]:
    """Features of the encoder's levels, its parts called one after the other, at level 0 with the image twice."""
    times = torch.zeros(len(image))
    embedded = network.time_embed(get_timestep_embedding(times, 8))
    hidden, features = network.conv_in(torch.cat([image, image], 1)), []
    for block in network.down_blocks:
        for place, residual in enumerate(block.resnets):
            hidden = residual(hidden, embedded)
            if hasattr(block, "attentions"):
                hidden = block.attentions[place](hidden)
        if block.downsampler is not None:
            hidden = block.downsampler(hidden, embedded)
        features.append(hidden)
    return features


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_those_of_the_encoder_levels(dims: int) -> None:
    torch.manual_seed(0)
    network = random_denoiser(dims).eval()
    image = torch.rand(2, 2, *[8] * dims, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = encoder_features(network, image)
        expected = _by_parts(network, image)
    assert [tuple(f.shape) for f in features] == [(2, 8, *[4] * dims)] * 2
    for mine, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(not module._forward_hooks for module in network.modules()), "nothing stays behind"


def test_residual_of_features_compares_what_a_member_sees_in_both() -> None:
    network = _map(members=2, residual="features")
    result = network.predict(IMAGES).anomaly_map
    made, maps = torch.from_numpy(_restorations(network, IMAGES, [0, 1])[:, 0]).float(), []
    for member, restored in zip(network.network.members, made, strict=True):
        with torch.no_grad():
            pairs = list(zip(_by_parts(member, restored), _by_parts(member, IMAGES), strict=True))
        for a, b in pairs:
            cosine = (a * b).sum(1) / (a.square().sum(1).sqrt() * b.square().sum(1).sqrt())
            maps.append(F.interpolate(1 - cosine[:, None], (16, 16), mode="bilinear", align_corners=False))
    torch.testing.assert_close(result, torch.stack(maps).mean(0), rtol=1e-3, atol=1e-5)
    assert float(result.mean()) > 1e-4


@pytest.mark.parametrize("residual", RESIDUALS)
def test_every_residual_is_zero_where_the_restoration_is_the_image(residual: str) -> None:
    class Same(nn.Module):
        def forward(self, network: nn.Module, image: Tensor, member: int) -> Tensor:
            return image[None]

    network = _map(members=2, residual=residual)
    network.sampler = Same()
    result = network.predict(IMAGES)
    assert result.anomaly_map.shape == (3, 1, 16, 16) and float(result.anomaly_map.abs().max()) < 1e-5
    torch.testing.assert_close(result.reconstruction, IMAGES)


def test_members_left_out_count_for_nothing() -> None:
    network = _map(members=4)
    network.network.keep([1, 3])
    made = _restorations(network, IMAGES, [1, 3])[:, 0]
    result = network.predict(IMAGES)
    np.testing.assert_allclose(result.reconstruction, made.mean(0), atol=1e-5)
    expected = np.abs(made - IMAGES.numpy()).mean((0, 2))
    np.testing.assert_allclose(result.anomaly_map[:, 0], expected, atol=1e-5)


def test_members_have_noise_of_their_own() -> None:
    network = _map(members=2)
    network.network.members[1].load_state_dict(network.network.members[0].state_dict())
    assert float(network.predict(IMAGES).spread.mean()) > 0.01


def test_forward_is_the_map_alone_without_gradient() -> None:
    network = _map()
    result = network(IMAGES.clone().requires_grad_())
    assert torch.equal(result, network.predict(IMAGES).anomaly_map) and not result.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def _slow_mask(image: Tensor, share: float) -> np.ndarray:
    """Pixels (*S) of one image (C, *S) of which any channel is above its own minimum by a share of its own range."""
    mask = np.zeros(image.shape[1:], dtype=bool)
    for channel in image.numpy():
        low, high = channel.min(), channel.max()
        for place in np.ndindex(*mask.shape):
            mask[place] |= channel[place] > low + share * (high - low)
    return mask


def _with_background(dims: int = 2) -> Tensor:
    """Bodies of different brightness before a background of different darkness; one image is dark all over."""
    images = torch.rand(4, 2, *[8] * dims, generator=torch.Generator().manual_seed(2)) * 0.5
    images[..., :3] = 0
    scale = torch.tensor([1.0, 0.1, 0.5, 0.0]).reshape(-1, *[1] * (dims + 1))
    return images * scale - torch.tensor([1.0, 0.2, 0.7, 0.4]).reshape(-1, *[1] * (dims + 1))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_background_is_found_image_by_image_and_channel_by_channel(share: float, dims: int) -> None:
    images = _with_background(dims)
    mask = above_background(images, share)
    assert mask.shape == (4, 1, *[8] * dims)
    for row, image in enumerate(images):
        assert np.array_equal(mask[row, 0].numpy(), _slow_mask(image, share))
    assert not mask[..., :3].any() and not mask[3].any()
    assert all(bool(mask[row].any()) for row in range(3)), "dark bodies too"


def test_background_does_not_depend_on_the_batch() -> None:
    images = _with_background()
    together = above_background(images, 0.05)
    for rows in ([0], [1], [2, 1], [3, 0, 1]):
        assert torch.equal(above_background(images[rows], 0.05), together[rows])
    bright = torch.cat([images, torch.full((1, 2, 8, 8), 1.0), torch.full((1, 2, 8, 8), -1.0)])
    assert torch.equal(above_background(bright, 0.05)[:4], together)


@pytest.mark.parametrize("background", [0.0, 0.3])
def test_map_is_zero_in_the_background_and_as_before_elsewhere(background: float) -> None:
    images = F.interpolate(_with_background(), (16, 16))
    everywhere, network = _map(), _map(background=background)
    free, masked = everywhere.predict(images), network.predict(images)
    mask = torch.from_numpy(np.stack([_slow_mask(image, background) for image in images]))[:, None]
    assert 0.05 < float(mask.float().mean()) < 0.8
    assert torch.equal(masked.anomaly_map, torch.where(mask, free.anomaly_map, torch.zeros(())))
    assert torch.equal(masked.reconstruction, free.reconstruction)
    alone = torch.cat([network.predict(image[None]).anomaly_map for image in images])
    torch.testing.assert_close(alone, masked.anomaly_map, rtol=0, atol=1e-4)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_volumes(residual: str) -> None:
    volumes = torch.rand(1, 2, 12, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    folds = NetworkFolds(partial(random_denoiser, 3), 2)
    result = DiffusionMap(folds, DiffusionSampler(num_steps=1), residual, 0.0).eval().predict(volumes)
    assert result.anomaly_map.shape == result.spread.shape == (1, 1, 12, 12, 12)
    assert bool(torch.isfinite(result.anomaly_map).all())


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"residual must be one of \('ssim', .*\), got 'l3'"):
        _map(residual="l3")
    for background in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"background must be None or in \[0, 1\), got {background}"):
            _map(background=background)
