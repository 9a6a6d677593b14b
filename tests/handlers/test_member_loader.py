# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from monai_anomaly.handlers import MemberLoader, pack_members
from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import DiffusionMap, DiffusionSampler

denoiser = partial(
    DiffusionModelUNet,
    spatial_dims=2,
    in_channels=2,
    out_channels=1,
    channels=(8, 8),
    attention_levels=(False, False),
    num_res_blocks=1,
    norm_num_groups=8,
)
IMAGE = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _network(members: int = 4, seed: int = 0) -> DiffusionMap:
    return DiffusionMap(NetworkFolds(denoiser, members, seed), DiffusionSampler(num_steps=2), "l1")


def _train(folder: Path, folds: list[int], name: str = "model_best.pt") -> dict[int, nn.Module]:
    """Write what the trainings of some folds would, and return these networks."""
    trained = {}
    for fold in folds:
        torch.manual_seed(100 + fold)
        network = denoiser()
        for parameter in network.parameters():  # its last layers start at zero
            nn.init.normal_(parameter, std=0.3)
        path = folder / f"fold_{fold}" / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
        trained[fold] = network
    return trained


def _assert_loaded(network: DiffusionMap, trained: dict[int, nn.Module]) -> None:
    assert network.network.present.tolist() == [fold in trained for fold in range(len(network.network.members))]
    for fold, expected in trained.items():
        for name, value in network.network.members[fold].state_dict().items():
            assert torch.equal(value, expected.state_dict()[name]), name


def test_all_members_are_loaded_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained, network = _train(tmp_path, [0, 1, 2, 3]), _network()
    with caplog.at_level(logging.WARNING):
        assert MemberLoader(network, tmp_path).load() == [0, 1, 2, 3]
    _assert_loaded(network, trained)
    assert not caplog.records


def test_missing_members_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained, network = _train(tmp_path, [1, 3]), _network()
    (tmp_path / "fold_0" / "models").mkdir(parents=True)  # begun, but without a best network yet
    with caplog.at_level(logging.WARNING):
        assert MemberLoader(network, str(tmp_path)).load() == [1, 3]
    _assert_loaded(network, trained)
    assert "2 of 4 members are there: folds 0, 2 are missing; train them with --fold NUMBER" in caplog.text
    # what the ensemble then gives is the mean of those two
    torch.manual_seed(0)
    result = network.eval().predict(IMAGE)
    alone = [network.sampler(trained[fold].eval(), IMAGE, fold)[0].detach() for fold in (1, 3)]
    torch.testing.assert_close(result.reconstruction, (alone[0] + alone[1]) / 2)


def test_members_that_are_not_asked_are_loaded_and_packed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained, network = _train(tmp_path, [0, 1, 3]), _network()
    network.network.max_asked = 2
    with caplog.at_level(logging.INFO):
        assert MemberLoader(network, tmp_path).load() == [0, 1, 3]
    _assert_loaded(network, trained)
    assert "asking folds 0, 3; --max_asked 2 is the most, '$None' asks all" in caplog.text
    assert pack_members(network, tmp_path, tmp_path / "model.pt") == [0, 1, 3]


def test_members_that_come_later_count_at_the_next_load(tmp_path: Path) -> None:
    network = _network()
    for folds in ([2], [0, 2], [0, 1, 2, 3]):
        trained = _train(tmp_path, folds)
        assert MemberLoader(network, tmp_path).load() == folds
        _assert_loaded(network, trained)


def test_another_file_of_each_member(tmp_path: Path) -> None:
    _train(tmp_path, [0, 1])
    last, network = _train(tmp_path, [0], "model.pt"), _network()
    assert MemberLoader(network, tmp_path, "model.pt").load() == [0]
    _assert_loaded(network, last)


def test_loads_when_an_evaluation_starts(tmp_path: Path) -> None:
    trained, network = _train(tmp_path, [0, 2]), _network()
    engine = Engine(lambda engine, batch: _assert_loaded(network, trained))
    MemberLoader(network, tmp_path).attach(engine)
    assert network.network.present.all()
    engine.run([0])


def test_one_file_holds_what_the_folder_does(tmp_path: Path) -> None:
    trained, packed, network = _train(tmp_path / "run", [0, 2]), tmp_path / "bundle" / "model.pt", _network()
    assert pack_members(_network(), tmp_path / "run", packed) == [0, 2]
    assert MemberLoader(network, packed).load() == [0, 2]
    _assert_loaded(network, trained)
    assert [path.name for path in packed.parent.iterdir()] == ["model.pt"]
    other = _network()
    MemberLoader(other, tmp_path / "run").load()
    assert torch.equal(network(IMAGE), other(IMAGE))


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_there_names_the_place_and_the_remedy(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(ValueError, match="no weights at") as error:
        MemberLoader(_network(), folder).load()
    assert str(folder) in str(error.value) and "fold_0/models/model_best.pt" in str(error.value)
    assert "train first" in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("packed", [True, False])
def test_a_half_written_file_names_itself(packed: bool, share: float, tmp_path: Path) -> None:
    _train(tmp_path / "run", [0, 1])
    path = tmp_path / "run" / "fold_1" / "models" / "model_best.pt"
    if packed:
        pack_members(_network(), tmp_path / "run", path := tmp_path / "model.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="cannot be read") as error:
        MemberLoader(_network(), path if packed else tmp_path / "run").load()
    assert str(path) in str(error.value)


def test_a_file_of_something_else_names_itself(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("no weights", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path}/weights.pt cannot be read"):
        MemberLoader(_network(), tmp_path / "weights.pt").load()


@pytest.mark.parametrize(
    "content", [{"other": torch.zeros(1)}, {}, [torch.zeros(1)], torch.zeros(1), {"epoch": 3, "network": {}}]
)
def test_weights_of_another_network_name_their_file(content: object, tmp_path: Path) -> None:
    _train(tmp_path, [0, 1])
    path = tmp_path / "fold_1" / "models" / "model_best.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="does not fit the network: give the settings of its training") as error:
        MemberLoader(_network(), tmp_path).load()
    assert str(path) in str(error.value)


def test_weights_of_another_size_name_their_file(tmp_path: Path) -> None:
    _train(tmp_path, [0])
    path = tmp_path / "fold_0" / "models" / "model_best.pt"
    torch.save(denoiser(channels=(8, 16)).state_dict(), path)
    with pytest.raises(ValueError, match="does not fit the network") as error:
        MemberLoader(_network(), tmp_path).load()
    assert str(path) in str(error.value)
