# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.utils import copy_model_state
from torch import nn

from monai_anomaly.utils import accept_only_whole_weights, locals_of_caller, read_settings, save_weights


def network(channels: int = 1) -> nn.Module:
    """One that takes weights whole or not at all."""
    made = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.BatchNorm2d(2))
    accept_only_whole_weights(made)
    return made


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_whole_weights_are_taken_by_every_way() -> None:
    source = network()
    for load in (
        lambda made: made.load_state_dict(source.state_dict()),
        lambda made: copy_model_state(made, source.state_dict()),
        lambda made: nn.Sequential(made).load_state_dict(nn.Sequential(source).state_dict()),
    ):
        made = network()
        load(made)
        assert same(snapshot(made), snapshot(source))
    source.load_state_dict(source.state_dict())  # changes nothing, and is no part
    copy_model_state(source, source.state_dict())


@pytest.mark.parametrize(
    "case", ["shape", "missing", "surplus", "not strict", "copied in part", "copied, but some", "nothing fits"]
)
def test_weights_that_do_not_fit_change_nothing(case: str) -> None:
    made, other = network(3), network(1)
    before, state = snapshot(made), made.state_dict()
    given = {name: value + 1 for name, value in state.items()}
    with pytest.raises(RuntimeError, match="Nothing was loaded"):
        if case == "shape":
            made.load_state_dict(other.state_dict())
        elif case == "missing":
            made.load_state_dict({name: value for name, value in given.items() if "bias" not in name})
        elif case == "surplus":
            made.load_state_dict(given | {"more": torch.ones(1)})
        elif case == "not strict":
            made.load_state_dict({"0.bias": given["0.bias"]}, strict=False)
        elif case == "copied in part":
            copy_model_state(made, other.state_dict())
        elif case == "copied, but some":
            copy_model_state(made, given | {"more": torch.ones(1)})
        else:
            copy_model_state(made, {"x": torch.ones(1)})
    assert same(snapshot(made), before)


def test_settings_are_inside_and_do_not_show(tmp_path: Path) -> None:
    settings = {"size": [2, 3], "width": 4, "rate": 1e-5, "name": "x", "none": None, "on": True}
    source = network()
    save_weights(source.state_dict(), tmp_path / "model.pt", settings)
    assert read_settings(tmp_path / "model.pt") == settings
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(state) == list(source.state_dict())
    network().load_state_dict(state)


def test_settings_beside_the_file(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "model.pt") == {}
    torch.save(network().state_dict(), tmp_path / "model.pt")
    assert read_settings(tmp_path / "model.pt") == {}
    (tmp_path / "training.json").write_text('{"width": 4}')
    assert read_settings(tmp_path / "model.pt") == {"width": 4}
    for text, remedy in (("{", "correct it at that place"), ("[1]", "copy it again from the training")):
        (tmp_path / "training.json").write_text(text)
        with pytest.raises(ValueError, match=rf"training.json .*{remedy}"):
            read_settings(tmp_path / "model.pt")


def test_locals_of_a_caller() -> None:
    def outer() -> object:
        secret = 3
        return secret and locals_of_caller(__name__, "outer").get("secret")

    assert outer() == 3
    assert locals_of_caller(__name__, "nobody") == {}
