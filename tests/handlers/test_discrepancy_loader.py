# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_anomaly.handlers import DiscrepancyLoader, load_refiner, pack_members, refiner_settings
from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import DiscrepancyMap
from monai_anomaly.networks.nets import DenseAutoencoder, RefinementNet

member = partial(DenseAutoencoder, 2, 1, 16, (2, 2, 2, 2), 2, 2)
IMAGE = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def _network(score: str = "inter", seed: int = 0) -> DiscrepancyMap:
    torch.manual_seed(seed)
    refiner = RefinementNet(2, 1 if score == "refined_intra" else 2, 3)
    return DiscrepancyMap(NetworkFolds(member, 4, seed), score, refiner=refiner).eval()


def _save(network: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)


def _train(folder: Path, folds: list[int], score: str = "") -> DiscrepancyMap:
    """Write what the trainings of some folds, and of a refiner, would leave; return their networks."""
    trained = _network(score or "inter", seed=7)
    for fold in folds:
        _save(trained.network.members[fold], folder / f"fold_{fold}/models/model.pt")
    if score and trained.refiner is not None:
        _save(trained.refiner, folder / "refiner/models/model.pt")
    trained.network.keep(folds)
    return trained


@pytest.mark.parametrize("score", ["inter", "intra", "rec", "refined_dual", "refined_intra"])
def test_what_is_loaded_scores_as_what_was_trained(score: str, tmp_path: Path) -> None:
    trained = _train(tmp_path, [0, 1, 3], score)
    network = _network(score)
    engine = Engine(lambda engine, batch: torch.testing.assert_close(network(IMAGE), trained(IMAGE)))
    DiscrepancyLoader(network, tmp_path).attach(engine)
    assert not torch.allclose(network(IMAGE), trained(IMAGE))
    engine.run([0])
    assert network.network.present.tolist() == [True, True, False, True]


def test_missing_networks_are_told_when_the_evaluation_starts(tmp_path: Path) -> None:
    _train(tmp_path, [0, 1])
    assert DiscrepancyLoader(_network("intra"), tmp_path).load() == [0, 1]
    with pytest.raises(ValueError, match=r"score 'inter' needs .*of those trained there are 2 and 0"):
        DiscrepancyLoader(_network("inter"), tmp_path).load()


def test_a_missing_refiner_is_told_only_where_it_is_needed(tmp_path: Path) -> None:
    _train(tmp_path, [0, 1, 2, 3])
    assert DiscrepancyLoader(_network("inter"), tmp_path).load() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"'refined_dual' needs a trained refiner"):
        DiscrepancyLoader(_network("refined_dual"), tmp_path).load()


def test_a_refiner_of_another_score_or_a_broken_one_names_its_file(tmp_path: Path) -> None:
    _train(tmp_path, [0, 1, 2, 3], "refined_intra")
    DiscrepancyLoader(_network("inter"), tmp_path).load()  # which does not look at it
    path = tmp_path / "refiner/models/model.pt"
    with pytest.raises(ValueError, match="does not fit the refiner of the score 'refined_dual'") as error:
        DiscrepancyLoader(_network("refined_dual"), tmp_path).load()
    assert str(path) in str(error.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is broken or does not fit") as error:
        DiscrepancyLoader(_network("refined_intra"), tmp_path).load()
    assert str(path) in str(error.value)


@pytest.mark.parametrize("refined", [True, False])
def test_one_file_holds_networks_and_refiner(refined: bool, tmp_path: Path) -> None:
    trained = _train(tmp_path / "run", [0, 1, 2], "refined_dual" if refined else "")
    network = _network("refined_dual")
    assert load_refiner(network, tmp_path / "run") is refined
    assert pack_members(network, tmp_path / "run", tmp_path / "model.pt", "model.pt") == [0, 1, 2]
    inter = _network("inter")
    assert DiscrepancyLoader(inter, tmp_path / "model.pt").load() == [0, 1, 2]
    torch.testing.assert_close(inter(IMAGE), DiscrepancyMap(trained.network, "inter")(IMAGE))
    loader = DiscrepancyLoader(_network("refined_dual"), tmp_path / "model.pt")
    if refined:
        loader.load()
        torch.testing.assert_close(loader.network(IMAGE), trained(IMAGE))
    else:
        with pytest.raises(ValueError, match="these weights hold none"):
            loader.load()


def test_settings_of_the_refiner_for_a_report(tmp_path: Path) -> None:
    assert refiner_settings(tmp_path, "refined_dual") is None
    path = tmp_path / "refiner/models/training.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seed": 3}))
    assert refiner_settings(tmp_path, "refined_dual") == {"seed": 3}
    assert refiner_settings(tmp_path, "inter") is None
