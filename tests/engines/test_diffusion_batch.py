# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_anomaly.engines import LossBatch, NoisedPair
from monai_anomaly.losses import NoisePredictionLoss, NoiseTarget

BETAS = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
ALPHAS = [math.prod(1 - beta for beta in BETAS[: t + 1]) for t in range(1000)]


def _batch(number: int = 4, first: int = 0, channels: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(first)
    clean = torch.rand(number, channels, 16, 16, generator=generator) * 2 - 1
    image = clean.clone()
    image[:, :, 4:8, 4:8] = 1.0
    return {"clean": clean, "image": image, "index": torch.arange(first, first + number)}


def _denoiser(channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    network = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2 * channels,
        out_channels=channels,
        channels=(8, 8),
        attention_levels=(False, True),
        num_res_blocks=1,
        num_head_channels=8,
        norm_num_groups=8,
    )
    for parameter in network.parameters():  # its last layers start at zero
        nn.init.normal_(parameter, std=0.2)
    return network


class Recorder(nn.Module):
    """Keeps what a denoiser is asked."""

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        self.joined, self.timesteps = x, timesteps
        return x[:, : x.shape[1] // 2]


def test_network_sees_the_noised_clean_image_and_beside_it_the_corrupted_one() -> None:
    batch, scheduler, network = _batch(channels=2), DDPMScheduler(1000), Recorder()
    clean, target, args, kwargs = NoisedPair(scheduler, noise_offset=0.1)(batch, "cpu")
    DiffusionInferer(scheduler)(clean, network, *args, **kwargs)
    assert torch.equal(clean, batch["clean"]) and args == ()
    assert torch.equal(network.timesteps, kwargs["timesteps"]) and kwargs["timesteps"].dtype == torch.int64
    for row, time in enumerate(kwargs["timesteps"].tolist()):
        a = ALPHAS[time]
        noisy = math.sqrt(a) * batch["clean"][row] + math.sqrt(1 - a) * target.noise[row]
        torch.testing.assert_close(network.joined[row], torch.cat([noisy, batch["image"][row]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gamma", [None, 1.0, 5.0])
def test_each_image_counts_as_its_level_does(gamma: float | None) -> None:
    torch.manual_seed(0)
    _, target, _, kwargs = NoisedPair(DDPMScheduler(1000), min_snr_gamma=gamma)(_batch(200))
    ratios = [ALPHAS[time] / (1 - ALPHAS[time]) for time in kwargs["timesteps"].tolist()]
    expected = [1.0 if gamma is None else min(ratio, gamma) / ratio for ratio in ratios]
    assert target.weight.tolist() == pytest.approx(expected, rel=1e-3)
    assert gamma is None or min(expected) < 0.2


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_velocity_is_made_of_the_same_noise(gamma: float | None) -> None:
    torch.manual_seed(0)
    pair = NoisedPair(DDPMScheduler(1000), prediction="velocity", min_snr_gamma=gamma)
    clean, target, _, kwargs = pair(_batch(30))
    for row, time in enumerate(kwargs["timesteps"].tolist()):
        a = ALPHAS[time]
        velocity = math.sqrt(a) * kwargs["noise"][row] - math.sqrt(1 - a) * clean[row]
        torch.testing.assert_close(target.noise[row], velocity, rtol=1e-4, atol=1e-5)
        expected = 1.0 if gamma is None else min(a / (1 - a), gamma) / (a / (1 - a) + 1)
        assert float(target.weight[row]) == pytest.approx(expected, rel=1e-3)


def test_noise_is_standard_normal_and_the_levels_are_equally_frequent() -> None:
    torch.manual_seed(0)
    images = torch.zeros(20_000, 1, 2, 2)
    _, target, _, kwargs = NoisedPair(DDPMScheduler(1000))({"clean": images, "image": images})
    assert torch.equal(target.noise, kwargs["noise"])
    assert stats.kstest(target.noise.flatten().numpy(), "norm").pvalue > 1e-3
    times = kwargs["timesteps"]
    assert int(times.min()) == 0 and int(times.max()) == 999
    assert stats.chisquare(torch.bincount(times // 50, minlength=20)).pvalue > 1e-3


def test_noise_offset_is_one_number_a_channel_and_part_of_what_is_predicted() -> None:
    torch.manual_seed(0)
    images = torch.zeros(600, 2, 16, 16)
    _, target, _, kwargs = NoisedPair(DDPMScheduler(1000), noise_offset=0.5)({"clean": images, "image": images})
    assert torch.equal(target.noise, kwargs["noise"])
    means = target.noise.flatten(2).mean(2)
    # the mean of 256 standard normal numbers adds 1/16 to a deviation of 0.5
    assert float(means.std()) == pytest.approx(math.hypot(0.5, 1 / 16), rel=0.08)
    assert abs(float(torch.corrcoef(means.T)[0, 1])) < 0.15, "channels are shifted apart"
    within = target.noise - means[..., None, None]
    assert stats.kstest((within.flatten()[:20_000] / math.sqrt(255 / 256)).numpy(), "norm").pvalue > 1e-3
    _, plain, _, _ = NoisedPair(DDPMScheduler(1000))({"clean": images, "image": images})
    assert float(plain.noise.flatten(2).mean(2).std()) == pytest.approx(1 / 16, rel=0.1)


def _drawn(pair: NoisedPair, batch: dict[str, Tensor]) -> Tensor:
    _, target, _, kwargs = pair(batch, "cpu")
    return torch.cat([target.noise.flatten(1), kwargs["timesteps"][:, None]], 1)


def test_seeded_passes_draw_the_same_and_leave_the_random_state_alone() -> None:
    pair = NoisedPair(DDPMScheduler(1000), noise_offset=0.1, seed=3)
    first = [_drawn(pair, _batch(4, start)) for start in (0, 4, 8)]
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    second = [_drawn(pair, _batch(4, start)) for start in (0, 4, 8)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(_drawn(NoisedPair(DDPMScheduler(1000), noise_offset=0.1, seed=3), _batch(4, 4)), first[1])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    assert not torch.equal(_drawn(NoisedPair(DDPMScheduler(1000), noise_offset=0.1, seed=4), _batch()), first[0])


def test_without_a_seed_every_pass_draws_anew_from_the_random_state() -> None:
    pair = NoisedPair(DDPMScheduler(1000))
    torch.manual_seed(1)
    first, second = _drawn(pair, _batch()), _drawn(pair, _batch())
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(_drawn(pair, _batch()), first)


def test_metadata_is_left_behind_and_the_type_is_chosen() -> None:
    batch = {key: MetaTensor(value) for key, value in _batch().items() if key != "index"}
    clean, target, _, kwargs = NoisedPair(DDPMScheduler(1000))(batch, "cpu", True, dtype=torch.float64)
    for tensor in (clean, target.noise, kwargs["noise"], kwargs["condition"]):
        assert type(tensor) is Tensor and tensor.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_offset": -0.1}, "noise_offset must be 0 or more, got -0.1"),
        ({"min_snr_gamma": 0.0}, "gamma must be above 0, got 0.0"),
        ({"prediction": "image"}, "prediction must be one of .* got 'image'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisedPair(DDPMScheduler(1000), **arguments)


def _evaluator(network: nn.Module, losses: list[Tensor]) -> SupervisedEvaluator:
    scheduler = DDPMScheduler(1000)
    batch = _batch(10)
    items = [{key: value[i] for key, value in batch.items()} for i in range(10)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, 4),
        network=network,
        inferer=DiffusionInferer(scheduler),
        prepare_batch=NoisedPair(scheduler, min_snr_gamma=1.0, seed=0),
        iteration_update=LossBatch(NoisePredictionLoss(reduction="none")),
        decollate=False,
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["losses"]))
    return evaluator


def test_losses_of_a_validation_are_those_of_each_image_and_of_each_pass() -> None:
    network, losses = _denoiser().train(), list[Tensor]()
    evaluator = _evaluator(network, losses)
    evaluator.run()
    assert [len(values) for values in losses] == [4, 4, 2] and not any(v.requires_grad for v in losses)
    assert network.training and all(p.grad is None for p in network.parameters())
    first = torch.cat(losses)
    evaluator.run()
    assert torch.equal(torch.cat(losses[3:]), first)
    scheduler, expected = DDPMScheduler(1000), []
    for start in (0, 4, 8):
        batch = {key: value[start : start + 4] for key, value in _batch(10).items()}
        clean, target, _, kwargs = NoisedPair(scheduler, min_snr_gamma=1.0, seed=0)(batch)
        for row, time in enumerate(kwargs["timesteps"].tolist()):
            a = ALPHAS[time]
            noisy = math.sqrt(a) * clean[row] + math.sqrt(1 - a) * target.noise[row]
            with torch.no_grad():
                made = network(torch.cat([noisy, batch["image"][row]])[None], torch.tensor([time]))
            squares = (made[0] - target.noise[row]).square()
            expected.append(min(1.0, (1 - a) / a) * float(squares.mean()))
    assert first.tolist() == pytest.approx(expected, rel=1e-3)


def test_a_trainer_of_monai_learns_with_it() -> None:
    scheduler, network, losses = DDPMScheduler(1000), _denoiser(2), list[float]()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=40,
        train_data_loader=[_batch(8, channels=2)],
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 0.01),
        loss_function=NoisePredictionLoss(),
        inferer=DiffusionInferer(scheduler),
        prepare_batch=NoisedPair(scheduler, noise_offset=0.1, seed=0),
        decollate=False,
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    trainer.run()
    assert isinstance(trainer.state.output["label"], NoiseTarget)
    assert losses[-1] < 0.8 * losses[0]
