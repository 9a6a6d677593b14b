# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from slow_maps import KINDS, SIZES, make_images
from torch import Tensor, nn

from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import DISCREPANCY_SCORES, DiscrepancyMap
from monai_anomaly.networks.nets import DenseAutoencoder, RefinementNet


def _folds(kind: str = "ae", dims: int = 2, channels: int = 1, members: int = 6) -> NetworkFolds:
    """Small networks whose batch statistics and weights are no longer those of fresh ones, in evaluation mode."""
    arguments: dict[str, Any] = KINDS[kind]
    member = partial(DenseAutoencoder, dims, channels, SIZES[dims], (4, 4, 6, 6), 8, 4, **arguments)
    folds = NetworkFolds(member, members, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in folds.state_dict().values():
            if value.is_floating_point():
                value.add_(0.3 * torch.rand(value.shape, generator=generator))
    return folds.eval()


def _map(score: str, kind: str = "ae", dims: int = 2, channels: int = 1, members: int = 6) -> DiscrepancyMap:
    torch.manual_seed(2)
    refiner = RefinementNet(dims, 1 if score == "refined_intra" else 2, 4)
    return DiscrepancyMap(_folds(kind, dims, channels, members), score, refiner=refiner).eval()


def _slow_parts(
    normal: Sequence[nn.Module], unlabeled: Sequence[nn.Module], image: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A_rec, A_intra and A_inter of one image (C, *S), each (*S), and the mean reconstruction (C, *S), in doubles."""
    image = image.double()
    by_normal = [copy.deepcopy(network).double()(image[None]) for network in normal]
    by_others = [copy.deepcopy(network).double()(image[None]) for network in unlabeled]
    k = len(by_normal)
    mean = sum(output.reconstruction[0] for output in by_normal) / k
    variance: Any = 1.0
    if by_normal[0].log_variance is not None:  # of the normal module alone
        variance = sum(torch.exp(output.log_variance[0]) for output in by_normal) / k
    rec = (image - mean) ** 2 / variance
    deviation = sum((output.reconstruction[0] - mean) ** 2 for output in by_normal) / max(k - 1, 1)
    intra = torch.sqrt(deviation / variance)
    inter = torch.sqrt((sum(output.reconstruction[0] for output in by_others) / len(by_others) - mean) ** 2 / variance)
    return rec.mean(0), intra.mean(0), inter.mean(0), mean


def _slow(network: DiscrepancyMap, image: Tensor, normal: Sequence[int], unlabeled: Sequence[int]) -> Tensor:
    members = network.network.members
    parts = _slow_parts([members[i] for i in normal], [members[i] for i in unlabeled], image)
    rec, intra, inter, _ = (part.detach() for part in parts)
    plain = {"rec": rec, "intra": intra, "inter": inter}
    if network.score in plain:
        return plain[network.score][None]
    seen = torch.stack([inter, intra] if network.score == "refined_dual" else [intra])
    logits = copy.deepcopy(network.refiner).double()(seen[None])[0].detach()  # type: ignore[misc]
    return (1 / (1 + torch.exp(logits[0] - logits[1])))[None]


def _assert_equal(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result.double(), expected.double(), rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("score", DISCREPANCY_SCORES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 3), (3, 1)])
def test_equal_to_the_formulas(score: str, kind: str, dims: int, channels: int) -> None:
    network, images = _map(score, kind, dims, channels).double(), make_images(2, dims, channels).double()
    result = network(images)
    assert result.shape == (2, 1, *images.shape[2:])
    expected = torch.stack([_slow(network, image, [0, 1, 2], [3, 4, 5]) for image in images])
    assert float(expected.std()) > 0
    torch.testing.assert_close(result.detach(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_is_the_mean_of_the_normal_module(kind: str) -> None:
    images = make_images(3)
    for score in DISCREPANCY_SCORES:
        network = _map(score, kind)
        expected = sum(member(images).reconstruction for member in network.network.members[:3]) / 3
        torch.testing.assert_close(network.predict(images).reconstruction, expected)


@pytest.mark.parametrize("score", ["inter", "intra", "rec"])
def test_variance_is_that_of_the_normal_module_alone(score: str) -> None:
    network, images = _map(score, "aeu"), make_images(2)
    before = network(images)
    for member in network.network.members[3:]:
        with torch.no_grad():
            member.head.weight[:, 1:].mul_(-3)  # type: ignore[union-attr, operator, index]
    assert torch.equal(network(images), before)


@pytest.mark.parametrize(("place", "score"), enumerate(["rec", "intra", "inter"]))
def test_gradient_is_that_of_the_formulas(place: int, score: str) -> None:
    network, images = _map(score, "aeu").double(), make_images(2).double()
    fast, slow = images.clone().requires_grad_(), images.clone().requires_grad_()
    network(fast).square().sum().backward()
    members = network.network.members
    for image in slow:
        _slow_parts(members[:3], members[3:], image)[place].square().sum().backward()
    assert fast.grad is not None and float(fast.grad.abs().max()) > 0
    torch.testing.assert_close(fast.grad, slow.grad)


@pytest.mark.parametrize("score", DISCREPANCY_SCORES)
def test_networks_that_are_not_there_are_left_out(score: str) -> None:
    network, images = _map(score, "aeu"), make_images(2)
    network.network.keep([0, 2, 4])
    expected = torch.stack([_slow(network, image, [0, 2], [4]) for image in images])
    with torch.no_grad():
        for index in (1, 3, 5):
            for parameter in network.network.members[index].parameters():
                parameter.fill_(torch.nan)
    _assert_equal(network(images).detach(), expected)


@pytest.mark.parametrize(
    ("score", "present"),
    [
        ("inter", [0, 1, 2]),
        ("inter", [3, 4]),
        ("intra", [0, 3, 4]),
        ("rec", [4, 5]),
        ("refined_intra", [2, 3]),
        ("refined_dual", [1, 3]),
        ("refined_dual", [0, 1]),
    ],
)
def test_too_few_networks_for_the_score(score: str, present: list[int]) -> None:
    network = _map(score)
    network.network.keep(present)
    counts = sum(i < 3 for i in present), sum(i >= 3 for i in present)
    with pytest.raises(ValueError, match=f"'{score}' needs .*of those trained there are {counts[0]} and {counts[1]}"):
        network(make_images(1))


@pytest.mark.parametrize("score", ["intra", "rec", "refined_intra"])
def test_the_normal_module_alone_is_enough_without_unlabeled_images(score: str) -> None:
    network, images = _map(score), make_images(2)
    before = network(images)
    network.network.keep([0, 1, 2])
    assert torch.equal(network(images), before)
    alone = DiscrepancyMap(_folds(members=3), score, 3, network.refiner)
    alone.network.members.load_state_dict(network.network.members[:3].state_dict())
    torch.testing.assert_close(alone.eval()(images), before)


def test_identical_modules_do_not_differ() -> None:
    network, images = _map("inter"), make_images(2)
    for index in range(3):
        network.network.members[index + 3].load_state_dict(network.network.members[index].state_dict())
    assert float(network(images).detach().abs().max()) == 0


@pytest.mark.parametrize("score", DISCREPANCY_SCORES)
@pytest.mark.parametrize("kind", ["ae", "aeu"])
def test_an_image_does_not_depend_on_its_batch(score: str, kind: str) -> None:
    network, images = _map(score, kind), make_images(5)
    whole = network(images).detach()
    for i in range(5):
        _assert_equal(network(images[i : i + 1]).detach(), whole[i : i + 1])
    _assert_equal(network(images[[4, 0]]).detach(), whole[[4, 0]])


@pytest.mark.parametrize(("score", "kind"), [("inter", "memae"), ("refined_dual", "aeu"), ("rec", "aeu")])
def test_torchscript_scripted_and_traced(score: str, kind: str) -> None:
    network, images = _map(score, kind), make_images(4)
    network.network.keep([0, 1, 4])
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(images), network(images))
    torch.testing.assert_close(scripted.predict(images).reconstruction, network.predict(images).reconstruction)
    with torch.no_grad():
        traced = torch.jit.trace(network, images[:2], check_trace=False)
        torch.testing.assert_close(traced(images), network(images))


def test_weights_say_whether_the_refiner_has_been_trained() -> None:
    network, images = _map("refined_dual"), make_images(1)
    network.refiner_present.fill_(False)
    other = _map("refined_dual")
    other.load_state_dict(network.state_dict())
    with pytest.raises(ValueError, match=r"'refined_dual' needs a trained refiner.*refine\.json"):
        other(images)
    plain = _map("inter")
    plain.load_state_dict(network.state_dict())
    assert plain(images).shape == images.shape, "what does not refine needs no refiner"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": "dual"}, "score must be one of .*refined_intra.*got 'dual'"),
        ({"score": "refined_dual"}, "score 'refined_dual' needs a refiner"),
        ({"num_normal": 0}, "num_normal must be from 1 to 6, the number of networks, got 0"),
        ({"num_normal": 7, "score": "rec"}, "got 7"),
        ({"num_normal": 6}, "score 'inter' needs .*there are 6 and 0"),
        ({"num_normal": 1, "score": "intra"}, "score 'intra' needs 2 or more .*there are 1 and 5"),
        ({"score": "refined_intra", "refiner": RefinementNet(2, 2, 4)}, "in_channels=1, got one with 2"),
        ({"score": "refined_dual", "refiner": RefinementNet(2, 1, 4)}, "in_channels=2, got one with 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscrepancyMap(_folds(), **arguments)


@pytest.mark.parametrize("setting", [{"max_asked": 6}, {"one_at_a_time": True}])
def test_networks_that_are_not_asked_together_are_refused(setting: dict[str, Any]) -> None:
    folds = NetworkFolds(partial(nn.Linear, 1, 1), 6, **setting)
    with pytest.raises(ValueError, match="DiscrepancyMap compares all trained networks at once: leave max_asked"):
        DiscrepancyMap(folds)


def test_a_single_network_is_of_the_normal_module() -> None:
    network = DiscrepancyMap(_folds(members=1), "rec").eval()
    assert network.num_normal == 1 and network(make_images(1)).shape == make_images(1).shape
    with pytest.raises(ValueError, match="score 'inter' needs .*there are 1 and 0"):
        DiscrepancyMap(_folds(members=1))
