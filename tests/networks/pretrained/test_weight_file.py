# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from monai_anomaly.networks.pretrained.weight_file import forget_weights, read_tensors, take_weights, without_weights


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_are_found_where_published_files_have_them(tmp_path: Path, nested: str | None, prefix: str) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in _network().state_dict().items()}
    torch.save({nested: state, "epoch": 3} if nested else state, tmp_path / "weights.pt")
    read = read_tensors(tmp_path / "weights.pt")
    assert list(read) == list(_network().state_dict())
    assert all(torch.equal(read[name], state[f"{prefix}{name}"]) for name in read)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(ValueError, match=r"weights\.pt not found"):
        read_tensors(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="are damaged, or hold objects"):
        read_tensors(path)
    torch.save(nn.Linear(1, 1), path)  # a whole module, which would run code
    with pytest.raises(ValueError, match="are damaged, or hold objects"):
        read_tensors(path)
    for content in ({}, {"a": 1}, [torch.zeros(1)]):
        torch.save(content, path)
        with pytest.raises(ValueError, match="are no dictionary of tensors"):
            read_tensors(path)


def test_weights_are_taken_whole_or_not_at_all() -> None:
    network, given = _network(), _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    good = {f"x.{name}": tensor + 1 for name, tensor in given.state_dict().items()}
    bad = {
        "lack x.0.bias": {name: tensor for name, tensor in good.items() if name != "x.0.bias"},
        "have, without a place for it, y": good | {"y": torch.zeros(1)},
        r"have x.0.bias \(4,\) instead of \(3,\)": good | {"x.0.bias": torch.zeros(4)},
        "are not finite in x.0.bias": good | {"x.0.bias": torch.full((3,), float("inf"))},
    }
    for message, state in bad.items():
        with pytest.raises(ValueError, match=f"weights some.pt {message}"):
            take_weights(network, state, "x.{}".format, "some.pt")
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    del good["x.1.num_batches_tracked"]  # old files have none
    take_weights(network, good | {"fc.bias": torch.zeros(1)}, "x.{}".format, "some.pt", ("fc.",))
    assert torch.equal(network[0].weight, given[0].weight + 1)


def test_a_network_without_weights_gives_no_number_and_draws_none() -> None:
    before = torch.get_rng_state()
    network = without_weights(_network).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert network(torch.zeros(1, 2)).isnan().all()
    assert all(tensor.isnan().all() for tensor in network.state_dict().values() if tensor.is_floating_point())
    assert network.state_dict()["1.num_batches_tracked"] == 0
    drawn = _network()
    forget_weights(drawn)
    assert drawn[1].running_var.isnan().all() and drawn[0].bias.isnan().all()
