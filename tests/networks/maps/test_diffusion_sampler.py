# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from random_denoiser import random_denoiser
from scipy import stats
from torch import Tensor, nn

from monai_anomaly.networks.maps import DiffusionSampler

BETAS = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
ALPHAS = np.cumprod([1 - beta for beta in BETAS])
IMAGES = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def _denoiser(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return random_denoiser().eval().requires_grad_(False)


class Recorder(nn.Module):
    """Keeps what it is asked, and predicts no noise at all or what another network does."""

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, joined: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append((joined, timesteps))
        if self.network is not None:
            return self.network(joined, timesteps)
        return torch.zeros_like(joined[:, : joined.shape[1] // 2])


def _posterior(x: Any, eps: Any, a_t: float, a_s: float) -> tuple[Any, float]:
    """Mean and standard deviation of the ancestral step, with the clean image clipped."""
    b = 1 - a_t / a_s
    x0 = np.clip((x - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t), -1, 1)
    mu = math.sqrt(a_s) * b / (1 - a_t) * x0 + math.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t) * x
    return mu, math.sqrt((1 - a_s) / (1 - a_t) * b)


def _levels(times: list[int]) -> list[tuple[float, float]]:
    following = [ALPHAS[t] for t in times[1:]] + [1.0]
    return [(ALPHAS[t], a_s) for t, a_s in zip(times, following, strict=True)]


def _noises(sampler: DiffusionSampler, images: Tensor, member: int = 0) -> np.ndarray:
    """All the noise that is drawn, (steps, samples B, C, *S), found out by a network that predicts none."""
    network = Recorder()
    sampler(network, images, member)
    seen = [joined[:, : images.shape[1]].double().numpy() for joined, _ in network.asked]
    noises = [seen[0]]
    for (a_t, a_s), x, following in zip(_levels(sampler.times), seen, seen[1:], strict=False):
        mu, sigma = _posterior(x, 0.0, a_t, a_s)
        noises.append((following - mu) / sigma)
    return np.stack(noises)


def _slow_restoration(network: nn.Module, image: Tensor, times: list[int], noises: np.ndarray) -> np.ndarray:
    """One image (C, *S), one step after the other, by the formulas of DDPM."""
    x = noises[0]
    for step, (t, (a_t, a_s)) in enumerate(zip(times, _levels(times), strict=True)):
        joined = torch.cat([torch.from_numpy(x).float(), image])[None]
        eps = network(joined, torch.tensor([t]))[0].double().numpy()
        x, sigma = _posterior(x, eps, a_t, a_s)
        if step + 1 < len(times):
            x = x + sigma * noises[step + 1]
    return x


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_restorations_step_by_step(spacing: str) -> None:
    network, sampler = _denoiser(), DiffusionSampler(num_steps=5, spacing=spacing, num_samples=2, seed=3)
    result = sampler(network, IMAGES, 1)
    assert result.shape == (2, *IMAGES.shape) and float(result.abs().max()) <= 1
    noises = _noises(sampler, IMAGES, 1).reshape(5, 2, *IMAGES.shape)
    for sample, row in np.ndindex(2, 3):
        expected = _slow_restoration(network, IMAGES[row], sampler.times, noises[:, sample, row])
        np.testing.assert_allclose(result[sample, row], expected, atol=2e-3)
    assert float((result - IMAGES).abs().mean()) > 0.05 and float(result.std()) > 0.05


def test_network_sees_the_noisy_image_first_and_the_image_beside_it_at_every_level() -> None:
    network, sampler = Recorder(_denoiser()), DiffusionSampler(num_steps=4)
    sampler(network, IMAGES)
    assert [times.tolist() for _, times in network.asked] == [[t] * 3 for t in (750, 500, 250, 0)]
    assert all(torch.equal(joined[:, 2:], IMAGES) and joined.shape[1] == 4 for joined, _ in network.asked)
    assert all(times.dtype == torch.int64 for _, times in network.asked)


def test_a_gaussian_is_sampled_as_published() -> None:
    class Exact(nn.Module):
        def forward(self, joined: Tensor, timesteps: Tensor) -> Tensor:
            a = float(ALPHAS[int(timesteps[0])])
            return math.sqrt(1 - a) * (joined[:, :1] - math.sqrt(a) * 0.2) / (a * 0.3**2 + 1 - a)

    image = torch.zeros(1, 1, 200, 200)
    for steps, std in ((10, 0.172), (50, 0.252)):
        result = DiffusionSampler(num_steps=steps)(Exact(), image)
        assert float(result.mean()) == pytest.approx(0.2, abs=0.005)
        assert float(result.std()) == pytest.approx(std, abs=0.006)


def test_noise_is_standard_normal_at_every_step_and_independent_between_them() -> None:
    images = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noises = _noises(DiffusionSampler(num_steps=6, num_samples=2), images).reshape(6, -1)
    for noise in noises:
        assert stats.kstest(noise, "norm").pvalue > 1e-3
    correlations = np.corrcoef(noises.reshape(24, -1))
    assert np.abs(correlations - np.eye(24)).max() < 0.09  # four standard errors


def test_noise_of_an_image_does_not_depend_on_its_batch_nor_on_its_place() -> None:
    network, sampler = _denoiser(), DiffusionSampler(num_steps=4, num_samples=2, seed=1)
    together, noises = sampler(network, IMAGES, 2), _noises(sampler, IMAGES, 2).reshape(4, 2, 3, 2, 16, 16)
    for rows in ([0], [1], [2, 0], [2, 1, 0, 1]):
        some = _noises(sampler, IMAGES[rows], 2).reshape(4, 2, len(rows), 2, 16, 16)
        np.testing.assert_allclose(some, noises[:, :, rows], atol=1e-3)
        torch.testing.assert_close(sampler(network, IMAGES[rows], 2), together[:, rows], rtol=0, atol=1e-4)


def test_noise_differs_between_images_members_samples_and_seeds() -> None:
    drawn = [
        _noises(DiffusionSampler(num_steps=2, num_samples=2, seed=seed), IMAGES, member).reshape(2, 2, 3, -1)
        for seed in (0, 1)
        for member in (0, 1)
    ]
    lines = [noise[step, sample, row] for noise in drawn for step, sample, row in np.ndindex(2, 2, 3)]
    assert np.abs(np.corrcoef(lines) - np.eye(48)).max() < 0.25


def test_more_samples_keep_those_before() -> None:
    network = _denoiser()
    one, three = (DiffusionSampler(num_steps=3, num_samples=number)(network, IMAGES) for number in (1, 3))
    torch.testing.assert_close(three[:1], one, rtol=0, atol=1e-5)
    assert all(float((three[i] - three[j]).abs().mean()) > 0.01 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_nothing_is_drawn_from_the_random_state() -> None:
    network, sampler = _denoiser(), DiffusionSampler(num_steps=2)
    torch.manual_seed(5)
    np.random.seed(5)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = sampler(network, IMAGES)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    torch.manual_seed(6)
    assert torch.equal(sampler(network, IMAGES), first)


def test_without_eta_all_steps_follow_from_the_first_noise() -> None:
    network, recorder = _denoiser(), Recorder()
    sampler = DiffusionSampler(num_steps=5, eta=0.0, seed=2)
    sampler(recorder, IMAGES)
    result = sampler(network, IMAGES)[0]
    for row in range(3):
        x = recorder.asked[0][0][row, :2].double().numpy()
        for t, (a_t, a_s) in zip(sampler.times, _levels(sampler.times), strict=True):
            joined = torch.cat([torch.from_numpy(x).float(), IMAGES[row]])[None]
            eps = network(joined, torch.tensor([t]))[0].double().numpy()
            x0 = np.clip((x - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t), -1, 1)
            x = math.sqrt(a_s) * x0 + math.sqrt(1 - a_s) * (x - math.sqrt(a_t) * x0) / math.sqrt(1 - a_t)
        np.testing.assert_allclose(result[row], x, atol=2e-3)
    assert float((result - DiffusionSampler(num_steps=5, seed=2)(network, IMAGES)[0]).abs().mean()) > 0.01


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_starting_at_a_level_between_noises_the_image_itself(eta: float) -> None:
    pure, begun = Recorder(), Recorder()
    DiffusionSampler(num_steps=4, eta=eta, num_samples=2)(pure, IMAGES)
    sampler = DiffusionSampler(num_steps=4, start=300, eta=eta, num_samples=2)
    sampler(begun, IMAGES)
    assert [int(times[0]) for _, times in begun.asked] == [225, 150, 75, 0]
    noise, a = pure.asked[0][0][:, :2], float(ALPHAS[225])
    expected = math.sqrt(a) * IMAGES.repeat(2, 1, 1, 1) + math.sqrt(1 - a) * noise
    torch.testing.assert_close(begun.asked[0][0][:, :2], expected, rtol=1e-4, atol=1e-5)
    # with the noise predicted that is there, the image comes back

    class Knows(nn.Module):
        def forward(self, joined: Tensor, timesteps: Tensor) -> Tensor:
            a = float(ALPHAS[int(timesteps[0])])
            return (joined[:, :2] - math.sqrt(a) * joined[:, 2:]) / math.sqrt(1 - a)

    torch.testing.assert_close(sampler(Knows(), IMAGES), IMAGES.expand(2, -1, -1, -1, -1), rtol=0, atol=1e-4)


def test_predicted_velocity_restores_as_the_noise_that_it_stands_for() -> None:
    network = _denoiser()

    class Velocity(nn.Module):
        def forward(self, joined: Tensor, timesteps: Tensor) -> Tensor:
            a, eps = float(ALPHAS[int(timesteps[0])]), network(joined, timesteps)
            x0 = (joined[:, :2] - math.sqrt(1 - a) * eps) / math.sqrt(a)
            return math.sqrt(a) * eps - math.sqrt(1 - a) * x0

    expected = DiffusionSampler(num_steps=4)(network, IMAGES)
    result = DiffusionSampler(num_steps=4, prediction="velocity")(Velocity(), IMAGES)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-3)


def test_a_network_in_bfloat16_gives_images_in_single_precision() -> None:
    network = Recorder(_denoiser())
    plain = DiffusionSampler(num_steps=3)(network, IMAGES)
    rounded = DiffusionSampler(num_steps=3, mixed_precision=True)(network, IMAGES)
    assert rounded.dtype == torch.float32 and [t.tolist()[0] for _, t in network.asked] == [666, 333, 0] * 2
    assert not torch.equal(plain, rounded) and float((plain - rounded).abs().mean()) < 0.1


@pytest.mark.parametrize("steps", [1, 2])
def test_volumes(steps: int) -> None:
    volumes = torch.rand(2, 1, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    result = DiffusionSampler(num_steps=steps, num_samples=2)(Recorder(), volumes)
    assert result.shape == (2, 2, 1, 4, 6, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta": -0.1}, r"eta must be in \[0, 1\], got -0.1"),
        ({"eta": 1.1}, r"eta must be in \[0, 1\], got 1.1"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps must be in 1..1000"),
        ({"start": 2000}, "start must be in 0..1000, got 2000"),
        ({"spacing": "even"}, "spacing must be one of .* got 'even'"),
        ({"prediction": "image"}, "prediction must be one of .* got 'image'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionSampler(**arguments)
