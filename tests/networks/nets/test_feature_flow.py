# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import ignite.distributed as idist
import pytest
import torch
from small_extractor import SmallExtractor
from torch import Tensor

from monai_anomaly.networks.blocks import CouplingFlow
from monai_anomaly.networks.nets import FeatureFlow


def network(axes: int = 2, **settings: object) -> FeatureFlow:
    torch.manual_seed(0)
    made = FeatureFlow(SmallExtractor([3, 4], [1, 2], axes), axes, **({"blocks": 2, "condition": 12} | settings))  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(1)
    for parameter in made.flows.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=draw)
    return made


def images(number: int, axes: int = 2, seed: int = 0) -> Tensor:
    size = [6, 4] if axes == 2 else [4, 2, 6]
    return torch.rand(number, 1, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def slow_code(place: tuple[int, ...], length: int) -> Tensor:
    """Sines and cosines of the coordinates of a place: the second axis first, then the first, then the third."""
    order = [1, 0, *range(2, len(place))]
    waves = length // (2 * len(place))
    code: list[float] = []
    for axis in order:
        angles = [place[axis] / 10000 ** (k / waves) for k in range(waves)]
        code += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return torch.tensor(code)


@pytest.mark.parametrize(("axes", "condition", "length"), [(2, 12, 12), (2, 15, 12), (3, 20, 18)])
def test_likelihoods_are_those_of_the_formula(axes: int, condition: int, length: int) -> None:
    made = network(axes, condition=condition).eval()
    image = images(2, axes)
    output = made(image)
    for layer, (features, found) in enumerate(zip(made.extractor(image), output.log_likelihood, strict=True)):
        channels = features.shape[1]
        assert found.shape == (2, 1, *features.shape[2:])
        for number, *place in torch.cartesian_prod(*map(torch.arange, (2, *features.shape[2:]))).tolist():
            vector = features[(number, slice(None), *place)]
            code = slow_code(tuple(place), length)
            latent, log_det = made.flows[layer](vector[None], code[None])
            normal = torch.distributions.Normal(0.0, 1.0).log_prob(latent).sum()
            expected = (normal + log_det[0]) / channels
            torch.testing.assert_close(found[(number, 0, *place)], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_density_is_one_over_all_features() -> None:
    """By an integral over vectors drawn from a wide Gaussian."""
    torch.manual_seed(0)
    flow, code = network().eval().flows[0], slow_code((1, 2), 12)
    normal = torch.distributions.Normal(0.0, 1.0)
    healthy = flow.inverse(normal.sample((20000, 3)), code.expand(20000, -1))
    wide = torch.distributions.MultivariateNormal(healthy.mean(0), 4 * healthy.T.cov())
    vectors = wide.sample((40000,))
    latent, log_det = flow(vectors, code.expand(40000, -1))
    density = normal.log_prob(latent).sum(1) + log_det
    assert float((density - wide.log_prob(vectors)).exp().mean()) == pytest.approx(1, abs=0.05)


def test_places_matter_and_other_images_do_not() -> None:
    made, image = network().eval(), images(3)
    output = made(torch.full_like(image, 0.5))
    assert output.log_likelihood[0][0, 0].flatten().unique().numel() > 20, "the same features, elsewhere"
    together = made(image).log_likelihood
    for level, alone in enumerate(made(image[1:2]).log_likelihood):
        torch.testing.assert_close(together[level][1:2], alone)


def test_the_peak_rises_at_once_and_falls_slowly() -> None:
    made = network()
    assert made(images(2)).peak.shape == (2,)
    made = network().train()
    peak: list[float] = []
    risen = fallen = 0
    for seed in range(12):
        output = made(images(1, seed=seed))
        found = [float(each.max()) for each in output.log_likelihood]
        if not peak:
            peak = found
        else:
            risen += found[0] > peak[0]
            fallen += found[0] < peak[0]
            peak = [new if new > old else old + 0.1 * (new - old) for new, old in zip(found, peak, strict=True)]
        assert output.peak.tolist() == pytest.approx(peak, rel=1e-5)
    assert risen and fallen
    before = output.peak.clone()
    made(images(1, seed=99) * 100)
    assert torch.equal(output.peak, before), "an output stays as it was"
    kept = made.peak.clone()
    made.eval()(images(4, seed=50))
    assert torch.equal(made.peak, kept), "only a training changes it"
    other = network(seed=3)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.eval()(images(2)).peak, made(images(2)).peak)
    for one, two in zip(other(images(2)).log_likelihood, made(images(2)).log_likelihood, strict=True):
        assert torch.equal(one, two), "the orders of channels come with the weights"


def test_the_peak_of_the_study() -> None:
    made = network(compat="upd").train()
    for scale, shift in ((1.0, 0.0), (0.5, 0.1), (0.1, 0.0)):
        output = made(images(2) * scale + shift)
        largest = max(float(each.max()) for each in output.log_likelihood)
        assert output.peak.tolist() == pytest.approx([max(largest, 0.0)] * 2)
    for block in made.flows[1].blocks:
        block.global_scale.data += 60
    output = made(images(2) * 1e-3)
    largest = max(float(each.max()) for each in output.log_likelihood)
    assert largest != 0 and output.peak.tolist() == pytest.approx([max(largest, 0.0)] * 2)


def test_all_processes_have_one_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def reduced(values: Tensor, op: str) -> Tensor:
        asked.append(op)
        return torch.maximum(values, torch.tensor([-100.0, 7.0]))

    monkeypatch.setattr(idist, "all_reduce", reduced)
    made = network().train()
    output = made(images(2))
    assert output.peak.tolist() == pytest.approx([float(output.log_likelihood[0].max()), 7.0]) and asked == ["MAX"]


def test_features_are_standardized_where_asked() -> None:
    made = network(standardize=True).train()
    image = images(8)
    made(image)
    made.eval()
    for layer, (features, found) in enumerate(zip(made.extractor(image), made(image).log_likelihood, strict=True)):
        mean, deviation = (
            f(features.transpose(0, 1).flatten(1), dim=1)[:, None, None] for f in (torch.mean, torch.std)
        )
        plain = made._likelihood(layer, (features - mean) / (deviation**2 + 1e-5).sqrt())
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="condition must be at least 4, twice the axes, got 3"):
        network(condition=3)
    with pytest.raises(ValueError, match="compat must be None or 'upd', got 'mkd'"):
        network(compat="mkd")
    with pytest.raises(ValueError, match="axes must be 2 or 3, got 1"):
        FeatureFlow(SmallExtractor([3], [1]), 1)


def test_the_setting_of_the_paper_has_as_many_parameters_as_published() -> None:
    """237 M in the study of Lagogiannis et al. for layers 2 to 4, with the matrices of zeros and ones."""
    channels, condition = [512, 1024, 2048], 128
    learned = sum(p.numel() for n in channels for p in CouplingFlow(n, condition, blocks=1).parameters())
    by_hand = 0
    for number in channels:
        width = number // 2 + condition
        by_hand += width * 2 * width + 2 * width + 2 * width * number + number + 2 * number
    assert learned == by_hand
    matrices = 2 * sum(number**2 for number in channels)
    encoder = 68_883_240 - 2_049_000  # a WideResNet-50-2 without its last layer
    assert round((8 * (learned + matrices) + encoder) / 1e6) == 237
