# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from scipy import stats
from torch import Tensor

from monai_anomaly.functional import (
    denoising_step,
    diffusion_times,
    min_snr_weight,
    noise_of_velocity,
    shifted_by_content,
)

MEAN, STD = 0.2, 0.3
STEPS = (10, 50, 100, 250, 1000)
# what strided sampling of N(.2, .3^2) with the exact noise ends at, 2e5 samples, no clipping
REACHED = {
    "leading": (0.172, 0.252, 0.272, 0.286, 0.296),
    "linspace": (0.164, 0.252, 0.272, 0.288, 0.296),
    "trailing": (0.172, 0.253, 0.273, 0.287, 0.296),
}
CASES = [(spacing, n, std) for spacing, values in REACHED.items() for n, std in zip(STEPS, values, strict=True)]


def slow_alphas(count: int = 1000) -> list[float]:
    """Product of ``1 - beta`` up to each level, beta going evenly from 1e-4 to 0.02."""
    alphas, product = [], 1.0
    for t in range(count):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / (count - 1))
        alphas.append(product)
    return alphas


ALPHAS = slow_alphas()


def exact_noise(noisy: Tensor, alpha: float) -> Tensor:
    """Expected noise in a sample at a level, when clean samples are N(.2, .3^2)."""
    return math.sqrt(1 - alpha) * (noisy - math.sqrt(alpha) * MEAN) / (alpha * STD**2 + 1 - alpha)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def walk(times: list[int], step: Callable[[Tensor, int, int], Tensor], noisy: Tensor) -> Tensor:
    """Go through the levels, and from the last of them to the clean image (-1)."""
    for t, s in zip(times, times[1:] + [-1], strict=True):
        noisy = step(noisy, t, s)
    return noisy


def level(time: int) -> float:
    return ALPHAS[time] if time >= 0 else 1.0


@pytest.mark.parametrize(("spacing", "steps", "std"), CASES)
def test_ancestral_sampling_of_a_gaussian_ends_at_the_published_deviation(spacing: str, steps: int, std: float) -> None:
    generator = torch.Generator().manual_seed(steps)

    def step(noisy: Tensor, t: int, s: int) -> Tensor:
        fresh = torch.randn(noisy.shape, generator=generator)
        alpha, following = torch.tensor(level(t)), torch.tensor(level(s))
        return denoising_step(noisy, exact_noise(noisy, level(t)), alpha, following, fresh, clip=None)

    begin = torch.randn(60_000, generator=generator)
    end = walk(diffusion_times(1000, steps, spacing), step, begin)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.005)
    assert float(end.std()) == pytest.approx(std, abs=0.005)


@pytest.mark.parametrize(("spacing", "steps", "std"), CASES)
def test_the_same_without_drawing(spacing: str, steps: int, std: float) -> None:
    mean, variance = 0.0, 1.0
    times = diffusion_times(1000, steps, spacing)
    probe = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    fresh = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    for t, s in zip(times, times[1:] + [-1], strict=True):
        # a step is linear: where it takes 0, 1 and a unit of fresh noise says where it takes mean and variance
        made = denoising_step(probe, exact_noise(probe, level(t)), scalar(level(t)), scalar(level(s)), fresh, clip=None)
        origin, slope, new = float(made[0]), float(made[1] - made[0]), float(made[2] - made[0])
        mean, variance = origin + slope * mean, slope**2 * variance + new**2
    assert mean == pytest.approx(MEAN, abs=0.002)
    assert math.sqrt(variance) == pytest.approx(std, abs=0.0025)


def test_steps_of_monai_with_fewer_levels_than_in_training_fail_this() -> None:
    scheduler = DDPMScheduler(1000, clip_sample=False)
    scheduler.set_timesteps(50)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(60_000, 1, generator=generator)
    for t in scheduler.timesteps.tolist():
        noisy, _ = scheduler.step(exact_noise(noisy, ALPHAS[t]), t, noisy, generator)
    assert float(noisy.mean()) == pytest.approx(0.04, abs=0.02)
    assert float(noisy.std()) == pytest.approx(0.89, abs=0.02)


@pytest.mark.parametrize("clip", [None, 1.0, 0.4])
@pytest.mark.parametrize(("t", "s"), [(980, 960), (400, 120), (20, 0), (1, 0), (0, -1), (999, -1)])
def test_full_eta_is_the_posterior_of_ddpm(t: int, s: int, clip: float | None) -> None:
    rng = np.random.RandomState(t)
    x, eps, z = rng.randn(3, 2, 3, 5, 4)
    a_t, a_s = level(t), level(s)
    a, b = a_t / a_s, 1 - a_t / a_s
    x0 = (x - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    if clip is not None:
        assert np.abs(x0).max() > clip
        x0 = np.minimum(np.maximum(x0, -clip), clip)
    mu = math.sqrt(a_s) * b / (1 - a_t) * x0 + math.sqrt(a) * (1 - a_s) / (1 - a_t) * x
    variance = (1 - a_s) / (1 - a_t) * b
    tensors = [torch.from_numpy(v) for v in (x, eps)]
    result = denoising_step(*tensors, scalar(a_t), scalar(a_s), torch.from_numpy(z), eta=1.0, clip=clip)
    np.testing.assert_allclose(result, mu + math.sqrt(variance) * z, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(denoising_step(*tensors, scalar(a_t), scalar(a_s), clip=clip), mu, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_any_eta_is_the_scalar_formula_of_ddim(eta: float) -> None:
    rng = np.random.RandomState(3)
    for t, s in ((900, 850), (300, 10), (40, -1)):
        x, eps, z = (float(v) for v in 0.3 * rng.randn(3))
        a_t, a_s = level(t), level(s)
        sigma = eta * math.sqrt((1 - a_s) / (1 - a_t)) * math.sqrt(1 - a_t / a_s)
        expected = math.sqrt(a_s) * (x - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
        expected += math.sqrt(1 - a_s - sigma**2) * eps + sigma * z
        tensors = [torch.full((1, 1, 1), value, dtype=torch.float64) for value in (x, eps)]
        noise = torch.full((1, 1, 1), z, dtype=torch.float64)
        result = denoising_step(*tensors, scalar(a_t), scalar(a_s), noise, eta=eta, clip=None)
        assert float(result) == pytest.approx(expected, rel=1e-9)


def test_without_eta_nothing_is_drawn_and_a_gaussian_is_reached_all_the_same() -> None:
    begin = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(2))

    def deterministic(fresh: Tensor | None) -> Tensor:
        def step(noisy: Tensor, t: int, s: int) -> Tensor:
            alphas = torch.tensor(level(t)), torch.tensor(level(s))
            return denoising_step(noisy, exact_noise(noisy, level(t)), *alphas, fresh, eta=0.0, clip=None)

        return walk(diffusion_times(1000, 500), step, begin)

    end = deterministic(None)
    assert torch.equal(end, deterministic(noise))
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01) and float(end.std()) == pytest.approx(STD, abs=0.01)
    # a map, not a draw: what begins higher ends higher
    assert float(np.corrcoef(end, begin)[0, 1]) > 0.9999


@pytest.mark.parametrize("t", [1, 20, 500, 999])
def test_neighboring_levels_are_steps_of_monai(t: int) -> None:
    x, eps = torch.randn(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(t))
    scheduler = DDPMScheduler(1000)
    expected, _ = scheduler.step(eps, t, x, torch.Generator().manual_seed(7))
    z = torch.randn(eps.shape, generator=torch.Generator().manual_seed(7))
    alphas = scheduler.alphas_cumprod
    torch.testing.assert_close(denoising_step(x, eps, alphas[t], alphas[t - 1], z), expected, rtol=1e-3, atol=1e-5)


def test_levels_far_apart_are_steps_of_monai_with_full_eta() -> None:
    scheduler = DDIMScheduler(1000, clip_sample=False)
    scheduler.set_timesteps(50)  # its step goes to t - 20
    x, eps = torch.randn(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    alphas = scheduler.alphas_cumprod
    for eta in (0.0, 1.0):
        for t in (980, 500, 20):
            expected, _ = scheduler.step(eps, t, x, eta=eta, generator=torch.Generator().manual_seed(7))
            z = torch.randn(eps.shape, generator=torch.Generator().manual_seed(7))
            result = denoising_step(x, eps, alphas[t], alphas[t - 20], z, eta=eta, clip=None)
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_noise_is_recomputed_from_the_clipped_image_unless_as_in_monais_ddim(eta: float) -> None:
    scheduler = DDIMScheduler(1000, clip_sample=True)
    scheduler.set_timesteps(50)
    x, eps = 2 * torch.randn(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    t, alphas = 500, scheduler.alphas_cumprod
    z = torch.randn(eps.shape, generator=torch.Generator().manual_seed(7))
    clean = (x - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
    assert bool((clean.abs() > 1).any()) and bool((clean.abs() < 1).any())
    kept, recomputed = (
        denoising_step(x, eps, alphas[t], alphas[t - 20], z, eta=eta, recompute_noise=choice)
        for choice in (False, True)
    )
    theirs, _ = scheduler.step(eps, t, x, eta=eta, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(kept, theirs, rtol=1e-4, atol=1e-5)
    equal = torch.isclose(kept, recomputed, atol=1e-5)
    assert torch.equal(equal, clean.abs() <= 1), "the two differ exactly where something was clipped"


def test_the_last_step_gives_the_clean_image_whatever_is_drawn() -> None:
    x, eps, z = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    alpha = torch.tensor(ALPHAS[100])
    clean = ((x - (1 - alpha).sqrt() * eps) / alpha.sqrt()).clamp(-1, 1)
    for eta in (0.0, 1.0):
        torch.testing.assert_close(denoising_step(x, eps, alpha, torch.tensor(1.0), z, eta), clean)


def test_visited_levels() -> None:
    assert diffusion_times() == list(range(980, -1, -20))
    assert diffusion_times(1000, 3) == [666, 333, 0]
    assert diffusion_times(1000, 1000) == diffusion_times(1000, 1000, "trailing") == list(range(999, -1, -1))
    assert diffusion_times(1000, 5, "linspace") == [999, 749, 500, 250, 0]
    assert diffusion_times(1000, 50, "trailing") == list(range(999, 18, -20))
    assert diffusion_times(1000, 3, "trailing") == [999, 666, 332]
    assert diffusion_times(1000, 4, start=200) == [150, 100, 50, 0]
    assert diffusion_times(1000, 4, "trailing", start=200) == [199, 149, 99, 49]
    assert diffusion_times(1000, 3, "linspace", start=201) == [200, 100, 0]
    assert diffusion_times(1000, 10, start=1000) == diffusion_times(1000, 10)


@pytest.mark.parametrize("spacing", REACHED)
def test_levels_fall_strictly_and_stay_below_the_start(spacing: str) -> None:
    for start in (7, 250, 1000):
        for steps in {1, 2, 3, 7, min(start, 99), start}:
            times = diffusion_times(1000, steps, spacing, start)
            assert len(times) == steps and times[-1] >= 0 and times[0] < start
            assert all(a > b for a, b in zip(times, times[1:], strict=False))
            by_hand = {
                "leading": [i * (start // steps) for i in reversed(range(steps))],
                "linspace": [round(i * (start - 1) / max(steps - 1, 1)) for i in reversed(range(steps))],
                "trailing": [round(start - i * (start / steps)) - 1 for i in range(steps)],
            }
            assert times == by_hand[spacing]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 1001}, "start must be in 0..1000, got 1001"),
        ({"start": -1}, "start must be in 0..1000, got -1"),
        ({"num_steps": 0}, "num_steps must be in 1..1000.*got 0"),
        ({"num_steps": 1001}, "num_steps must be in 1..1000.*got 1001"),
        ({"num_steps": 50, "start": 40}, "num_steps must be in 1..40.*got 50"),
        ({"spacing": "even"}, r"spacing must be one of \('leading', 'linspace', 'trailing'\), got 'even'"),
    ],
)
def test_wrong_levels(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diffusion_times(**arguments)


def test_min_snr_weights_are_the_published_ones() -> None:
    alphas = torch.tensor(ALPHAS, dtype=torch.float64)
    weights = min_snr_weight(alphas, 1.0)
    assert [float(weights[t]) for t in (0, 100, 250)] == pytest.approx([1.0001e-4, 0.1171, 0.918], rel=1e-3)
    assert float(weights[258]) < 1 and bool((weights[259:] == 1).all())
    assert float(weights.mean()) == pytest.approx(0.8173, abs=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0])
def test_min_snr_weight_level_by_level(gamma: float) -> None:
    weights = min_snr_weight(torch.tensor(ALPHAS, dtype=torch.float64), gamma)
    expected = [min(a / (1 - a), gamma) / (a / (1 - a)) for a in ALPHAS]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    if gamma == 5:
        assert float(weights[100]) > 0.1171 and float(weights[250]) == 1


def test_weights_of_predicted_velocity_are_those_of_its_signal_to_noise_ratio_plus_one() -> None:
    weights = min_snr_weight(torch.tensor(ALPHAS, dtype=torch.float64), 5.0, velocity=True)
    expected = [min(a / (1 - a), 5.0) / (a / (1 - a) + 1) for a in ALPHAS]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


@pytest.mark.parametrize("t", [0, 100, 999])
def test_velocity_stands_for_noise_and_image(t: int) -> None:
    x, eps = np.random.RandomState(t).randn(2, 2, 1, 3, 4)
    a = ALPHAS[t]
    noisy = math.sqrt(a) * x + math.sqrt(1 - a) * eps
    velocity = math.sqrt(a) * eps - math.sqrt(1 - a) * x
    result = noise_of_velocity(torch.from_numpy(velocity), torch.from_numpy(noisy), scalar(a))
    np.testing.assert_allclose(result, eps, rtol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, -1.0])
def test_wrong_gamma(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"gamma must be above 0, got {gamma}"):
        min_snr_weight(torch.tensor(ALPHAS), gamma)


def turns(noise: Tensor, result: Tensor) -> list[int]:
    """By how much the noise of each image is rotated; every draw of an image by the same."""
    found = []
    for image in result.flatten(2).unbind(1):
        matching = [k for k in range(noise.shape[1]) if torch.equal(noise.roll(-k, 1), image)]
        assert len(matching) == 1
        found.append(matching[0])
    return found


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 5, 7), (1, 6, 4, 5)])
def test_noise_of_an_image_is_rotated_by_what_it_holds(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, math.prod(shape), generator=generator)
    images = torch.rand(6, *shape, generator=generator) * 2 - 1
    together = shifted_by_content(noise, images)
    assert together.shape == (4, 6, *shape)
    assert len(set(turns(noise, together))) > 3
    order = [4, 0, 5, 2]
    assert torch.equal(shifted_by_content(noise, images[order]), together[:, order])
    for place in range(6):
        assert torch.equal(shifted_by_content(noise, images[place : place + 1]), together[:, place : place + 1])


def test_all_rotations_are_equally_frequent_whatever_the_images_have_in_common() -> None:
    rng = np.random.RandomState(0)
    noise = torch.arange(64.0)[None]
    images = np.full((4000, 1, 8, 8), -1.0)  # a dark image with a few bright pixels, in steps of 8 bits
    images[:, 0, 3:5, 3:5] += rng.randint(0, 256, (4000, 2, 2)) / 127.5
    counts = np.bincount(shifted_by_content(noise, torch.from_numpy(images))[0, :, 0, 0, 0].long(), minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_images_of_a_few_gray_levels_and_a_power_of_two_pixels_differ(levels: int) -> None:
    noise = torch.arange(256.0)[None]
    draws = np.random.RandomState(levels).randint(0, levels, (100, 1, 16, 16))
    images = torch.from_numpy(draws * 2 / (levels - 1) - 1)
    assert len(set(shifted_by_content(noise, images)[0, :, 0, 0, 0].tolist())) > 60


def test_one_changed_pixel_turns_the_noise_elsewhere() -> None:
    noise = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    image = torch.zeros(1, 1, 16, 16)
    base = shifted_by_content(noise, image)
    same = 0
    for place in range(256):
        other = image.clone()
        other.view(-1)[place] = 1 / 255
        same += torch.equal(shifted_by_content(noise, other), base)
    assert same <= 6


def test_noise_takes_the_type_of_the_images() -> None:
    noise = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    assert shifted_by_content(noise, torch.rand(3, 1, 4, 4, dtype=torch.float64)).dtype == torch.float64
