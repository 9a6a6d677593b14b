# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomaly.networks.maps import MaskedReconstructionMap
from monai_anomaly.networks.nets import MaskedAutoencoder
from monai_anomaly.networks.pretrained import start_from


def network(seed: int, num_layers: int = 1, num_heads: int = 2) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    settings = {"hidden_size": 12, "num_heads": num_heads, "decoder_hidden_size": 8, "decoder_num_heads": 2}
    return MaskedAutoencoder(2, 1, 16, 8, num_layers=num_layers, decoder_num_layers=1, **settings)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_pre_training(wrapped: bool, tmp_path: Path) -> None:
    trained = network(1)
    # the bundle saves the network with the map around it
    torch.save((MaskedReconstructionMap(trained) if wrapped else trained).state_dict(), tmp_path / "model.pt")
    fresh = network(2)
    assert not same(trained, fresh)
    assert start_from(fresh, tmp_path / "model.pt") is fresh
    assert same(trained, fresh)


def test_no_weights_are_random_ones_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    fresh = network(2)
    with caplog.at_level(logging.WARNING):
        assert start_from(fresh, None) is fresh and same(fresh, network(2))
    assert "--start_weights" in caplog.text


def test_a_wrong_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    missing, other, broken = (tmp_path / name for name in ("missing.pt", "other.pt", "broken.pt"))
    torch.save(network(1, num_layers=2).state_dict(), other)
    broken.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"missing\.pt do not exist: train the bundle mae_pretrain"):
        start_from(network(2), missing)
    for file in (other, broken):
        with pytest.raises(ValueError, match=rf"{file.name} does not fit the network: give the settings"):
            start_from(network(2), file)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_nothing_but_weights_is_read(tmp_path: Path) -> None:
    torch.save({"args": Code(tmp_path / "mark")}, tmp_path / "objects.pt")
    with pytest.raises(ValueError, match=r"objects\.pt does not fit"):
        start_from(network(2), tmp_path / "objects.pt")
    assert not (tmp_path / "mark").exists()
