# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from monai_anomaly.networks.blocks import NetworkEnsemble
from monai_anomaly.networks.nets import DenseAutoencoder

member = partial(DenseAutoencoder, 2, 1, 16, (2, 3, 4, 4), 6, 3)
IMAGE = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def _weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.flatten() for p in network.parameters()])


def test_members_start_from_weights_of_their_own() -> None:
    torch.manual_seed(1)
    first = NetworkEnsemble(member, 3, seed=4)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = NetworkEnsemble(member, 3, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator must be left alone"
    assert torch.equal(_weights(first), _weights(again))
    # fewer members are the first of the more
    assert torch.equal(
        _weights(NetworkEnsemble(member, 2, seed=4)), _weights(first)[: 2 * _weights(first).numel() // 3]
    )
    starts = [_weights(m) for seed in (0, 1, 2) for m in NetworkEnsemble(member, 3, seed=seed).members]
    assert len({tuple(w.tolist()) for w in starts}) == 9
    torch.manual_seed(3)
    drawn = NetworkEnsemble(member, 1, seed=None)
    torch.manual_seed(3)
    assert torch.equal(_weights(drawn), _weights(member()))


def test_only_the_last_active_member_trains() -> None:
    ensemble = NetworkEnsemble(member, 3)
    assert int(ensemble.num_active) == 3
    for index, expected in ((0, [True, True, True]), (1, [False, True, True]), (2, [False, False, True])):
        ensemble.activate(index)
        assert [m.training for m in ensemble.train().members] == expected
        assert not any(module.training for m in ensemble.members[:index] for module in m.modules())
        assert not any(m.training for m in ensemble.eval().members)
        ensemble.activate(index)
        assert not any(m.training for m in ensemble.members), "activate keeps the evaluation mode"
    assert int(ensemble.state_dict()["num_active"]) == 3


def test_forward_runs_the_member_that_learns_beside_the_frozen_ones() -> None:
    ensemble = NetworkEnsemble(member, 3)
    ensemble.activate(0)
    output = ensemble.train()(IMAGE)
    assert output.senior_features is None and ensemble.features_of_seniors(IMAGE) is None
    ensemble.activate(2)
    ensemble.train()
    buffers = [b.clone() for m in ensemble.members[:2] for b in m.buffers()]
    output = ensemble(IMAGE)
    assert output.senior_features is not None
    assert output.senior_features.shape == (2, 4, 3) and not output.senior_features.requires_grad
    assert output.member.features.requires_grad
    for senior, features in zip(ensemble.members[:2], output.senior_features, strict=True):
        assert torch.equal(senior.eval()(IMAGE).features, features)
    assert all(
        torch.equal(a, b) for a, b in zip(buffers, [b for m in ensemble.members[:2] for b in m.buffers()], strict=True)
    )
    known = torch.zeros(2, 4, 3)
    assert ensemble(IMAGE, known).senior_features is known
    ensemble.activate(1)
    assert ensemble.eval()(IMAGE).senior_features.shape == (1, 4, 3)
    assert torch.equal(ensemble(IMAGE).member.reconstruction, ensemble.members[1](IMAGE).reconstruction)


@pytest.mark.parametrize("num_members", [0, -1])
def test_no_members(num_members: int) -> None:
    with pytest.raises(ValueError, match=f"positive, got {num_members}"):
        NetworkEnsemble(member, num_members)


@pytest.mark.parametrize("index", [-1, 3])
def test_no_such_member(index: int) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 3\), got {index}"):
        NetworkEnsemble(member, 3).activate(index)
