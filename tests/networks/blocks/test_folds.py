# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_anomaly.networks.blocks import NetworkFolds, fold_member
from monai_anomaly.transforms import task_folds

member = partial(nn.Linear, 3, 2)
CPU = torch.device("cpu")


def _weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_members_start_from_weights_of_their_own_and_of_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = NetworkFolds(member, 3, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator must be left alone"
    torch.manual_seed(2)
    assert torch.equal(_weights(NetworkFolds(member, 3, seed=4)), _weights(first))
    assert torch.equal(_weights(NetworkFolds(member, 5, seed=4).members[:3]), _weights(first))
    starts = [_weights(m) for seed in (0, 1, 2) for m in NetworkFolds(member, 3, seed).members]
    assert len({tuple(w.tolist()) for w in starts}) == 9


def test_ten_members_as_published_all_of_them_present() -> None:
    folds = NetworkFolds(member)
    assert len(folds.members) == 10
    assert [(index, network) for index, network in folds.each(CPU)] == list(enumerate(folds.members))


def test_members_left_out_are_not_asked_and_keep_their_numbers() -> None:
    folds = NetworkFolds(member, 5)
    folds.keep([4, 1])
    assert [index for index, _ in folds.each(CPU)] == [1, 4]
    assert all(network is folds.members[index] for index, network in folds.each(CPU))
    folds.keep([0])  # not added to those before
    assert folds.present.tolist() == [True, False, False, False, False]


def test_weights_say_which_members_are_present() -> None:
    folds, other = NetworkFolds(member, 3, seed=0), NetworkFolds(member, 3, seed=1)
    folds.keep([0, 2])
    other.load_state_dict(folds.state_dict())
    assert other.present.tolist() == [True, False, True] and torch.equal(_weights(other), _weights(folds))


@pytest.mark.parametrize(
    ("present", "max_asked", "expected"),
    [
        (range(10), 3, [0, 4, 9]),
        (range(10), 1, [0]),
        (range(10), 10, list(range(10))),
        (range(10), 99, list(range(10))),
        (range(10), None, list(range(10))),
        ([2, 3, 7, 8, 9], 3, [2, 7, 9]),
        ([5, 6], 3, [5, 6]),
    ],
)
def test_some_of_those_that_are_there_are_asked(
    present: Sequence[int], max_asked: int | None, expected: list[int]
) -> None:
    folds = NetworkFolds(member, max_asked=max_asked)
    folds.keep(list(present))
    assert folds.asked() == expected
    assert [index for index, _ in folds.each(CPU)] == expected
    assert folds.present.sum() == len(present), "those that are not asked are there all the same"


def test_three_of_ten_know_all_synthetic_tasks() -> None:
    trained_on = [task_folds()[fold][0] for fold in NetworkFolds(member, max_asked=3).asked()]
    assert set().union(*trained_on) == set(range(5))


class Traveler(nn.Module):
    """Knows where it has been sent, without going there."""

    def __init__(self, log: list[Any]) -> None:
        super().__init__()
        self.log = log

    def to(self, device: Any) -> Traveler:  # type: ignore[override]
        self.log.append((id(self), str(device)))
        return self

    def cpu(self) -> Traveler:
        return self.to("cpu")


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
@pytest.mark.parametrize("one_at_a_time", [True, False])
def test_members_are_moved_only_where_one_at_a_time_is_on_the_device(one_at_a_time: bool, device: str) -> None:
    log: list[Any] = []
    folds = NetworkFolds(partial(Traveler, log), 3, one_at_a_time=one_at_a_time)
    folds.keep([0, 2])
    for _, network in folds.each(torch.device(device)):
        log.append((id(network), "asked"))
    expected = []
    for index in (0, 2):
        there, back = ([device], ["cpu"] if device != "cpu" else []) if one_at_a_time else ([], [])
        expected += [(id(folds.members[index]), place) for place in (*there, "asked", *back)]
    assert log == expected


@pytest.mark.parametrize("number", [0, -1])
def test_wrong_number_of_members(number: int) -> None:
    with pytest.raises(ValueError, match=f"num_members must be positive, got {number}"):
        NetworkFolds(member, number)


@pytest.mark.parametrize("number", [0, -1])
def test_wrong_number_of_members_to_ask(number: int) -> None:
    with pytest.raises(ValueError, match=f"max_asked must be positive, or None for all trained members, got {number}"):
        NetworkFolds(member, max_asked=number)


def test_no_member_at_all() -> None:
    with pytest.raises(ValueError, match="none of the members has been trained"):
        NetworkFolds(member, 3).keep([])


def test_members_that_are_compared_start_from_the_same_weights() -> None:
    folds = NetworkFolds(member, 3, seed=4, same_start=True)
    first = _weights(NetworkFolds(member, 1, seed=4))
    assert all(torch.equal(_weights(network), first) for network in folds.members)
    assert torch.equal(_weights(fold_member(member, 0, 4)), first)
    with torch.no_grad():  # each its own, though: what one learns the others must not
        next(folds.members[1].parameters()).add_(1)
    assert torch.equal(_weights(folds.members[0]), first) and torch.equal(_weights(folds.members[2]), first)
    assert not torch.equal(_weights(NetworkFolds(member, 2, seed=4).members[1]), first)
