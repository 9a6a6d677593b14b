# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The training of a refiner as its bundle wires it: what is corrupted, what it sees, its loss, one step."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_anomaly.bundle.build import bundle_files
from monai_anomaly.engines import DiscrepancyPair
from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import DiscrepancyMap
from monai_anomaly.networks.nets import DenseAutoencoder, RefinementNet

SIZES = {2: (16, 32), 3: (16, 16, 16)}


def _network(score: str, dims: int = 2, variance: bool = False) -> DiscrepancyMap:
    torch.manual_seed(0)
    member = partial(DenseAutoencoder, dims, 1, SIZES[dims], (2, 2, 3, 3), 4, 2, predict_variance=variance)
    refiner = RefinementNet(dims, 1 if score == "refined_intra" else 2, 4)
    return DiscrepancyMap(NetworkFolds(member, 4), score, refiner=refiner)


def _batch(dims: int = 2, count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (count, 1, *SIZES[dims])
    return {
        "image": torch.rand(shape, generator=generator) * 2 - 1,
        "label": (torch.rand(shape, generator=generator) < 0.2).float(),
    }


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("training", [False, True])
def test_the_refiner_sees_the_maps_of_networks_that_stay_as_they_are(dims: int, variance: bool, training: bool) -> None:
    network, batch = _network("refined_dual", dims, variance).train(training), _batch(dims)
    state = copy.deepcopy(network.state_dict())
    maps, label = DiscrepancyPair(network)(batch, "cpu", True)
    assert not maps.requires_grad and torch.equal(label, batch["label"])
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(module.training is training for module in network.modules())
    single = [DiscrepancyMap(network.network, score).eval()(batch["image"]) for score in ("inter", "intra")]
    torch.testing.assert_close(maps, torch.cat(single, 1).detach())
    intra, _ = DiscrepancyPair(_network("refined_intra", dims, variance))(batch, "cpu")
    torch.testing.assert_close(intra, maps[:, 1:])


@pytest.mark.parametrize("score", ["inter", "intra", "rec"])
def test_only_a_refined_score_has_a_refiner_to_train(score: str) -> None:
    with pytest.raises(ValueError, match=f"'refined_dual', 'refined_intra'.*got '{score}'"):
        DiscrepancyPair(_network(score))


def _parser(dims: int = 2, **options: Any) -> ConfigParser:
    """The configuration that trains the refiner, made small."""
    files = bundle_files("ddad")
    parser = ConfigParser(files["configs/train.json"])
    for key, value in files["configs/refine.json"].items():
        parser[key] = value
    small = {"num_folds": 4, "hidden_channels": 4, "latent_channels": 2, "refiner_channels": 4, "device": "cpu"}
    for key, value in {**small, "spatial_size": list(SIZES[dims]), **options}.items():
        parser[key] = value
    return parser


def _slow_focal(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the pixels of ``-(1 - p)^2 log p``, p the probability of the true class, pixel by pixel."""
    losses = []
    for pixel, truth in zip(logits.movedim(1, -1).reshape(-1, 2), label.flatten(), strict=True):
        odds = torch.exp(pixel)
        p = odds[int(truth)] / odds.sum()
        losses.append(-((1 - p) ** 2) * torch.log(p))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("dims", [2, 3])
def test_loss_is_the_published_one_in_value_and_gradient(dims: int) -> None:
    loss = _parser(dims).get_parsed_content("loss")
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 2, *[5] * dims, generator=generator)
    label = (torch.rand(2, 1, *[5] * dims, generator=generator) < 0.3).float()
    results = []
    for function in (loss, _slow_focal):
        x = logits.clone().requires_grad_()
        value = function(x, label)
        value.backward()
        results.append((value.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-7)


def test_a_step_trains_the_refiner_alone() -> None:
    parser, batch = _parser(), _batch()
    network, optimizer = parser.get_parsed_content("network"), parser.get_parsed_content("optimizer")
    whole = parser.get_parsed_content("scored_network")
    assert network is whole.refiner and network[0].conv.in_channels == 2
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.5, 0.999), 1e-4)
    assert len(group["params"]) == len(list(network.parameters()))
    prepare, loss = parser.get_parsed_content("prepare_batch"), parser.get_parsed_content("loss")
    before = copy.deepcopy(whole.state_dict())
    values = []
    for _ in range(30):
        maps, label = prepare(batch)
        optimizer.zero_grad()
        value = loss(network.train()(maps), label)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]
    changed = {name for name, value in whole.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("refiner.") for name in changed)
    assert {f"refiner.{name}" for name, _ in network.named_parameters()} <= changed


@pytest.mark.parametrize("dims", [2, 3])
def test_corruption_is_the_published_one(dims: int) -> None:
    size = (64, 64) if dims == 2 else (40, 40, 40)
    generator = np.random.RandomState(0)
    images = [torch.from_numpy(generator.rand(1, *size).astype(np.float32)) * 2 - 1 for _ in range(3)]
    parser = _parser(dims, healthy_images=images)
    corrupt, select = parser.get_parsed_content("train#random_transforms")
    sizes, weights, clean = set(), [], 0
    for draw in range(120 if dims == 2 else 20):
        corrupt.set_random_state(draw)
        sample = corrupt({"image": images[0], "index": draw})
        image, label = sample["image"], sample["label"]
        if not label.any():
            clean += 1
            assert torch.equal(image, images[0])
            continue
        places = torch.nonzero(label[0])
        low, high = places.min(0).values, places.max(0).values + 1
        box = (slice(None), *[slice(int(a), int(b)) for a, b in zip(low, high, strict=True)])
        assert bool((label[box] == 1).all()) and float(label.sum()) == float(label[box].numel()), "all of the box"
        foreign = min(images[1:], key=lambda y: float(_residual(image[box], images[0][box], y[box])))
        alpha = float(((image - images[0])[box] * (foreign - images[0])[box]).sum() / _square(foreign, images[0], box))
        torch.testing.assert_close(image[box], (1 - alpha) * images[0][box] + alpha * foreign[box], atol=1e-5, rtol=0)
        weights.append(alpha)
        assert torch.equal(image.masked_fill(label > 0, 0), images[0].masked_fill(label > 0, 0))
        inner = [int(n) for n, a, b, s in zip(high - low, low, high, size, strict=True) if a > 0 and b < s]
        assert len(set(inner)) <= 1, "a cube, where the border does not cut it"
        sizes |= set(inner)
    half = (round(0.05 * size[0]), round(0.2 * size[0]) - 1)
    assert {n % 2 for n in sizes} == {0} and min(sizes) >= 2 * half[0] and max(sizes) <= 2 * half[1]
    assert 0 <= min(weights) < 0.25 and 0.75 < max(weights) <= 1
    if dims == 2:
        assert half == (3, 12) and len(sizes) >= 8 and 40 < clean < 80
    assert set(select({"image": images[0], "label": label, "index": 0, "clean": images[0]})) == {
        "image",
        "label",
        "index",
    }


def _residual(values: Tensor, own: Tensor, foreign: Tensor) -> Tensor:
    """What no mixture of two images explains."""
    change, difference = (values - own).flatten(), (foreign - own).flatten()
    return (change - difference * (change @ difference) / (difference @ difference)).square().sum()


def _square(foreign: Tensor, own: Tensor, box: Any) -> Tensor:
    return (foreign - own)[box].square().sum()
