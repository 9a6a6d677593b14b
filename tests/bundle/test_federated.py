# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI's federated client, which NVFlare drives, trains a bundle round by round."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject

from monai_anomaly.data import make_phantom

pytestmark = pytest.mark.slow

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def small_bundle(name: str, folder: Path, members: int) -> Path:
    """A bundle as a site would set it up: its settings in the configuration, not on a command line."""
    bundle = folder / name
    shutil.copytree(BUNDLES / name, bundle)
    path = bundle / "configs/train.json"
    config = json.loads(path.read_text())
    data = {"dataset_dir": str(Path(make_phantom(folder / "data", size=16)).parent), "spatial_size": [16, 16]}
    small = {"batch_size": 8, "hidden_channels": 4, "val_interval": 1, "resume": False}
    path.write_text(json.dumps(config | data | small | ({"num_members": members} if members > 1 else {})))
    return bundle


def sent(weights: dict[str, Any]) -> ExchangeObject:
    """Weights as they arrive from a server: in memory of their own."""
    return ExchangeObject(weights={name: torch.as_tensor(value).clone() for name, value in weights.items()})


@pytest.mark.parametrize(("name", "members"), [("ae", 1), ("d2ue_ae", 2)])
def test_two_rounds_of_a_federated_client(name: str, members: int, tmp_path: Path) -> None:
    bundle = small_bundle(name, tmp_path, members)
    client = MonaiAlgo(
        bundle_root=str(bundle),
        local_epochs=members,
        send_weight_diff=False,
        best_model_filepath="runs/models/model_best.pt",
        final_model_filepath="runs/models/model.pt",
    )
    client.initialize(extra={ExtraItems.CLIENT_NAME: "site"})
    weights = client.get_weights().weights
    for finished in (1, 2):
        before = sent(weights).weights
        client.train(sent(weights))
        weights = client.get_weights().weights
        learned = [name for name in before if name.endswith("weight")]  # not only counters of batches
        changed = [name for name in learned if not torch.equal(before[name], torch.as_tensor(weights[name]))]
        assert changed and client.trainer.state.epoch == finished * members
    client.evaluate(sent(weights))
    assert (bundle / "runs/metrics.json").is_file()
    assert client.get_weights(extra={ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}).weights
    client.finalize()
