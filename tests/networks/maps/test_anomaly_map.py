# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from slow_maps import KINDS, SCORES, make_ensemble, make_images, slow_map
from torch import Tensor

from monai_anomaly.functional import l1_error, l2_error
from monai_anomaly.networks.blocks import NetworkEnsemble
from monai_anomaly.networks.maps import EnsembleMap, ReconstructionMap
from monai_anomaly.networks.nets import DenseAutoencoder
from monai_anomaly.utils import accept_weights_of_wrapper


def _assert_equal_maps(result: Tensor, expected: Tensor) -> None:
    # the maps of "dsu" are small, so the tolerance is a share of the largest value
    torch.testing.assert_close(result.double(), expected.double(), rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spatial_dims", "channels"), [(2, 1), (2, 3), (3, 1)])
def test_equal_to_the_formulas(score: str, kind: str, spatial_dims: int, channels: int) -> None:
    ensemble, images = make_ensemble(kind, spatial_dims, channels), make_images(3, spatial_dims, channels)
    result = EnsembleMap(ensemble, score)(images)
    assert result.shape == (3, 1, *images.shape[2:]) and not result.requires_grad
    learners = list(copy.deepcopy(ensemble).members)
    expected = torch.stack([slow_map(learners, image, score) for image in images])[:, None]
    assert float(expected.std()) > 0
    _assert_equal_maps(result, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_is_the_mean_of_the_members(kind: str) -> None:
    ensemble, images = make_ensemble(kind), make_images()
    expected = sum(m(images).reconstruction for m in ensemble.members) / 3
    for score in SCORES:
        torch.testing.assert_close(EnsembleMap(ensemble, score).predict(images).reconstruction, expected.detach())


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_its_batch(score: str, kind: str) -> None:
    network, images = EnsembleMap(make_ensemble(kind), score), make_images(6)
    whole = network(images)
    for i in range(6):
        _assert_equal_maps(network(images[i : i + 1]), whole[i : i + 1])
    _assert_equal_maps(network(images[[5, 0, 3]]), whole[[5, 0, 3]])


@pytest.mark.parametrize("score", SCORES)
def test_leaves_nothing_behind(score: str) -> None:
    ensemble, images = make_ensemble("aeu"), make_images().requires_grad_()
    for output in EnsembleMap(ensemble, score).predict(images):
        assert output.grad_fn is None and not output.requires_grad
    assert images.grad is None and all(p.grad is None and p.requires_grad for p in ensemble.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("score", SCORES)
def test_any_gradient_mode_of_the_caller(score: str) -> None:
    network, images = EnsembleMap(make_ensemble("aeu"), score), make_images()
    expected = network(images)
    with torch.no_grad():
        assert torch.equal(network(images), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert torch.equal(network(images), expected)
        assert torch.equal(network(images.clone()), expected), "images made in inference mode"
        assert torch.is_inference_mode_enabled()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("enabled", [True, False])
def test_a_failure_keeps_the_gradient_mode(score: str, enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        with pytest.raises(ValueError, match="resize it"):
            EnsembleMap(make_ensemble(), score)(torch.rand(1, 1, 8, 8))
        assert torch.is_grad_enabled() is enabled


@pytest.mark.parametrize("kind", KINDS)
def test_identical_learners_agree(kind: str) -> None:
    ensemble = make_ensemble(kind)
    for learner in ensemble.members[1:]:
        learner.load_state_dict(ensemble.members[0].state_dict())
    for score in ("unc", "dsu"):
        assert float(EnsembleMap(ensemble, score)(make_images()).abs().max()) < 1e-7
    assert float(EnsembleMap(ensemble, "ens")(make_images()).max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_one_member_has_no_disagreement(kind: str) -> None:
    ensemble = make_ensemble(kind, num_members=2)
    ensemble.activate(0)
    for score in ("unc", "dsu"):
        assert torch.equal(EnsembleMap(ensemble.eval(), score)(make_images()), torch.zeros(4, 1, 16, 32))
        with pytest.raises(ValueError, match=f"score '{score}' compares members: give two or more"):
            EnsembleMap(make_ensemble(kind, num_members=1), score)
    torch.testing.assert_close(
        EnsembleMap(ensemble, "ens")(make_images()), ReconstructionMap(ensemble.members[0])(make_images()).detach()
    )


@pytest.mark.parametrize("score", SCORES)
def test_members_not_trained_yet_are_left_out(score: str) -> None:
    ensemble, images = make_ensemble(num_members=4), make_images(2)
    ensemble.activate(1)
    learners = list(copy.deepcopy(ensemble).members)[:2]
    result = EnsembleMap(ensemble, score)(images)
    _assert_equal_maps(result, torch.stack([slow_map(learners, image, score) for image in images])[:, None])
    with torch.no_grad():
        for parameter in ensemble.members[2].parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(EnsembleMap(ensemble, score)(images), result)


@pytest.mark.parametrize(("score", "kind"), [("ens", "aeu"), ("unc", "memae"), ("dsu", "ae"), ("dsu", "aeu")])
def test_torchscript(score: str, kind: str) -> None:
    network, images = EnsembleMap(make_ensemble(kind), score), make_images()
    network.network.activate(1)
    scripted = torch.jit.script(network)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            result = scripted(images)
            assert torch.is_grad_enabled() is enabled
        _assert_equal_maps(result, network(images))
        assert not result.requires_grad
    _assert_equal_maps(scripted.predict(images).reconstruction, network.predict(images).reconstruction)


def test_unknown_score() -> None:
    with pytest.raises(ValueError, match=r"\('ens', 'unc', 'dsu'\), got 'std'"):
        EnsembleMap(NetworkEnsemble(partial(DenseAutoencoder, 2, 1, 16, (2, 2, 2, 2), 2, 2), 2), "std")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [l1_error, l2_error])
@pytest.mark.parametrize("channels", [1, 3])
def test_reconstruction_map(kind: str, error: object, channels: int) -> None:
    network, images = make_ensemble(kind, channels=channels).members[0], make_images(channels=channels)
    output = network(images)
    difference = images - output.reconstruction
    if kind == "aeu":
        expected = difference**2 / output.log_variance.exp()
    else:
        expected = difference.abs() if error is l1_error else difference**2
    maps = ReconstructionMap(network, error)  # type: ignore[arg-type]
    torch.testing.assert_close(maps(images), sum(expected[:, c : c + 1] for c in range(channels)) / channels)
    assert torch.equal(maps.predict(images).reconstruction, output.reconstruction)
    torch.testing.assert_close(torch.jit.script(maps)(images), maps(images))


def _wrap(kind: str) -> torch.nn.Module:
    if kind == "ensemble":
        return EnsembleMap(make_ensemble("ae"))
    return ReconstructionMap(DenseAutoencoder(spatial_size=16, hidden_channels=8))


@pytest.mark.parametrize("kind", ["ensemble", "single"])
def test_the_network_inside_loads_the_weights_of_the_whole(kind: str) -> None:
    trained, fresh = _wrap(kind), _wrap(kind)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    state = trained.state_dict()
    fresh.network.load_state_dict(state)
    assert all(torch.equal(state[key], value) for key, value in fresh.state_dict().items())
    fresh.load_state_dict(state)
    fresh.network.load_state_dict(trained.network.state_dict())
    with pytest.raises(RuntimeError, match="is missing; .*Nothing was loaded"):
        fresh.network.load_state_dict({f"other.{key}": value for key, value in state.items()})


class Nested(torch.nn.Module):
    """A network whose weights all lie in a module that is called ``network`` too."""

    def __init__(self) -> None:
        super().__init__()
        self.network = DenseAutoencoder(spatial_size=16, hidden_channels=8)


def test_a_network_still_loads_its_own_weights() -> None:
    network = Nested()
    accept_weights_of_wrapper(network, "network.")
    network.load_state_dict(network.state_dict())
    scripted = torch.jit.script(DenseAutoencoder(spatial_size=16, hidden_channels=8).eval())
    assert ReconstructionMap(scripted)(make_images()[..., :16]).shape == (4, 1, 16, 16)


def test_maps_leave_nothing_on_the_network() -> None:
    ensemble = make_ensemble("ae")
    hooks = len(ensemble._load_state_dict_pre_hooks)
    for _ in range(3):  # as inferers do for every batch
        EnsembleMap(ensemble)
    assert len(ensemble._load_state_dict_pre_hooks) == hooks
