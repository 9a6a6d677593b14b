# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_anomaly.engines import decay_groups, rate_groups


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_weights_decay_and_vectors_do_not() -> None:
    network = Network()
    groups = decay_groups(network, 0.3)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}
    assert found == {0.3: {"layer.weight", "token"}, 0.0: {"layer.bias", "norm.weight", "norm.bias"}}


def test_an_optimizer_takes_them() -> None:
    network = Network()
    optimizer = torch.optim.SGD(decay_groups(network, 0.5), lr=1.0)
    nn.init.ones_(network.norm.bias)
    nn.init.ones_(network.layer.weight)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # gradients are zero, so only the decay moves anything
    assert network.layer.weight.tolist() == [[0.5] * 3] * 2 and network.norm.bias.tolist() == [1, 1]


@pytest.mark.parametrize(("name", "decay"), [("weight", 0.05), ("bias", 0.0)])
def test_a_group_without_parameters_is_left_out(name: str, decay: float) -> None:
    layer = nn.Linear(3, 2)
    for other, parameter in layer.named_parameters():
        parameter.requires_grad_(other == name)
    (group,) = decay_groups(layer)
    assert group["weight_decay"] == decay and len(group["params"]) == 1


def nested() -> nn.Module:
    """Parts, one in another, and something frozen."""
    network = nn.ModuleDict(
        {"first": nn.Linear(2, 2), "head": nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})}
    )
    network["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    return network


def test_each_part_has_its_rate() -> None:
    network = nested()
    groups = rate_groups(network, ["head.b", "first", "head.a"], [0.1, 0.2, 0.3])
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert [(group["lr"], [names[id(each)] for each in group["params"]]) for group in groups] == [
        (0.1, ["head.b.weight", "head.b.bias"]),
        (0.2, ["first.weight", "first.bias"]),
        (0.3, ["head.a.weight", "head.a.bias"]),
    ]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = network["head"]["a"].weight.item()
    torch.optim.SGD(groups, lr=9.0).step()
    assert network["head"]["a"].weight.item() == pytest.approx(before - 0.3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["first", "head.a"], "got 0 for head.b.weight"),
        (["first", "head", "head.a"], "got 2 for head.a.weight"),
        (["first", "head", "frozen"], "must have parameters that learn"),
    ],
)
def test_parts_that_do_not_cover_a_network_are_refused(parts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate_groups(nested(), parts, [0.1] * len(parts))


def test_as_many_rates_as_parts() -> None:
    with pytest.raises(ValueError, match="rates must be one for each of 2 parts"):
        rate_groups(nested(), ["first", "head"], [0.1])
