# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A denoising student and the head that learns after it, in one run, as the bundle wires them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_anomaly.data import make_phantom
from monai_anomaly.networks.nets import DenoisingStudent

CONFIGS = Path(__file__).resolve().parents[2] / "bundles/destseg/configs"
SMALL: dict[str, Any] = {"student_width": 4, "head_width": 4, "spatial_size": [32, 32], "batch_size": 4}


class Death(BaseException):
    """The run is over, and nothing of it is tidied up."""


def _die(*_: Any) -> None:
    raise Death


def run(output: Path, data: Path, death: Any = None, **options: Any) -> ConfigWorkflow:
    """Train; ``death`` is the event of the trainer at which the run ends."""
    settings = {"bundle_root": str(CONFIGS.parent), "device": "$torch.device('cpu')", "dataset_dir": str(data)}
    settings |= {"output_dir": str(output), "checkpoint_seconds": 0, "max_epochs": 3, "val_interval": 3} | SMALL
    workflow = ConfigWorkflow(str(CONFIGS / "train.json"), workflow_type="train", **(settings | options))
    workflow.initialize()
    if death is not None:
        workflow.parser.get_parsed_content("train#trainer").add_event_handler(death, _die)
    workflow.run()
    return workflow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set of two batches an epoch."""
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, size=32, num_training=8, num_unlabeled=0, num_validation=2, num_testing=2)
    return folder


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run of six steps, half of them the student's."""
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder, data, student_share=0.5)
    return folder


def checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "models/checkpoint.pt", weights_only=True)
    return state


# after the first epoch the student learns, after the second the head does
@pytest.mark.parametrize("death", [Events.EPOCH_STARTED(once=2), Events.EPOCH_STARTED(once=3)], ids=["student", "head"])
def test_a_broken_off_run_ends_where_an_unbroken_one_does(
    death: Any, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(Death):
        run(tmp_path, data, death, student_share=0.5)
    torch.rand(7)  # whatever another process has drawn
    run(tmp_path, data, student_share=0.5, num_workers=1)
    resumed, whole = checkpoint(tmp_path), checkpoint(unbroken)
    torch.testing.assert_close(resumed["network"], whole["network"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["optimizer"]["state"], whole["optimizer"]["state"], rtol=0, atol=0)


def test_each_stage_trains_its_part_for_its_share_of_the_steps(unbroken: Path) -> None:
    state = checkpoint(unbroken)
    weights = torch.load(unbroken / "models/model.pt", weights_only=True)
    assert int(weights["network.stage"]) == 1 and state["trainer"]["iteration"] == 6
    for part in ("student", "head"):
        counts = {int(v) for k, v in weights.items() if k.startswith(f"network.{part}.") and k.endswith("_tracked")}
        assert counts == {3}
    assert {int(each["step"]) for each in state["optimizer"]["state"].values()} == {3}


def test_another_share_is_another_run(data: Path, unbroken: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(unbroken, data, student_share=0.2)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert "student_share: 0.5 -> 0.2" in str(error)


@pytest.mark.parametrize("texture", ["self", "source", "files"])
def test_what_the_student_sees_has_an_anomaly_where_the_mask_says(texture: str, data: Path) -> None:
    options = {"texture_dir": str(data)} if texture == "files" else {"texture": texture}
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json")])
    parser.update({"device": "cpu", "dataset_dir": str(data), **SMALL, **options})
    dataset = parser.get_parsed_content("train#dataset")
    samples = [dataset[key] for key in range(3 * len(dataset))]
    assert samples[0].keys() == {"image", "clean", "label", "index"}
    for sample in samples:
        changed = (sample["image"] != sample["clean"]).any(0, keepdim=True)
        assert torch.equal(changed, sample["label"] > 0)
    assert sum(bool(sample["label"].any()) for sample in samples) > len(samples) / 2
    assert not torch.equal(samples[0]["image"], samples[len(dataset)]["image"])  # another one in the next epoch


def test_paper_has_the_networks_and_rates_of_the_paper() -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")])
    parser.update({"device": "cpu", "backbone_weights": "from_checkpoint", "in_channels": 3})
    network = parser.get_parsed_content("network")
    assert isinstance(network, DenoisingStudent) and network.extractor.num_channels == (64, 128, 256)
    assert [type(last).__name__ for last in network.student.last] == ["Identity"] * 3
    groups = parser.get_parsed_content("optimizer").param_groups
    assert [group["lr"] for group in groups] == [0.4, 0.1, 0.01, 0.01]
    assert {(group["momentum"], group["weight_decay"]) for group in groups} == {(0.9, 0.0001)}
    parts = (network.student, network.head.residual, network.head.pyramid, network.head.last)
    for group, part in zip(groups, parts, strict=True):
        assert [id(each) for each in group["params"]] == [id(each) for each in part.parameters()]
    reduction = parser.get_parsed_content("reduction")
    values = torch.randperm(256 * 256, generator=torch.Generator().manual_seed(0)).reshape(1, 1, 256, 256).double()
    assert float(reduction(values)) == 65535 - 99 / 2  # the mean of the 100 largest
