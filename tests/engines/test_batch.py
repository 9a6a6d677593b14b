# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from torch import nn
from torch.utils.data import DataLoader

from monai_anomaly.engines import (
    device_of_rank,
    prepare_feature_batch,
    prepare_image_batch,
    prepare_pair_batch,
    score_batch,
)
from monai_anomaly.inferers import ReconstructionInferer
from monai_anomaly.networks.nets import DenseAutoencoder

IMAGES = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_prepare_image_batch() -> None:
    image = MetaTensor(IMAGES, meta={"a": 1})
    inputs, targets = prepare_image_batch({"image": image}, "cpu", True, dtype=torch.float64)
    assert inputs is targets and type(inputs) is torch.Tensor and inputs.dtype == torch.float64
    assert torch.equal(inputs.float(), IMAGES)
    with pytest.raises(KeyError):
        prepare_image_batch({"label": image})


def test_pairs_of_clean_and_corrupted_images() -> None:
    clean, image = MetaTensor(IMAGES[:3], meta={"a": 1}), IMAGES[:3] + 1
    inputs, classes = prepare_pair_batch({"image": image, "clean": clean, "target": [1, 0, 1]}, "cpu", True)
    assert type(inputs) is torch.Tensor and inputs.shape == (6, 1, 16, 16)
    assert torch.equal(inputs[:3], IMAGES[:3]) and torch.equal(inputs[3:], image)
    assert classes.tolist() == [0, 0, 0, 1, 0, 1] and classes.dtype == torch.int64


def test_pairs_of_features() -> None:
    features = torch.arange(12.0).reshape(3, 2, 2)
    batch = {"features": features, "target": torch.tensor([0, 1, 1])}
    inputs, classes = prepare_pair_batch(batch, "cpu", dtype=torch.float64)
    assert inputs.dtype == torch.float64 and inputs.tolist() == [[0, 1], [4, 5], [8, 9], [2, 3], [6, 7], [10, 11]]
    assert classes.tolist() == [0, 0, 0, 0, 1, 1] and classes.dtype == torch.int64


def test_images_with_features_that_were_made_before() -> None:
    image, maps = MetaTensor(IMAGES, meta={"a": 1}), [torch.rand(5, 2, 4, 4), MetaTensor(torch.rand(5, 3, 2, 2))]
    inputs, targets, args, kwargs = prepare_feature_batch({"image": image, "features": maps}, "cpu", True)
    assert inputs is targets and torch.equal(inputs, IMAGES) and args == () and list(kwargs) == ["features"]
    for made, given in zip(kwargs["features"] or [], maps, strict=True):
        assert type(made) is torch.Tensor and torch.equal(made, torch.as_tensor(given))
    assert prepare_feature_batch({"image": image})[3] == {"features": None}


def _evaluator(network: nn.Module, inferer: Any, outputs: list[Any]) -> SupervisedEvaluator:
    items = [
        {"image": image, "label": torch.zeros(1, 16, 16), "target": i % 2, "patient": f"p{i}"}
        for i, image in enumerate(IMAGES)
    ]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, 2),
        network=network,
        inferer=inferer,
        iteration_update=score_batch,
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.extend(engine.state.output))
    return evaluator


def test_score_batch_leaves_one_flat_sample_for_each_image() -> None:
    network, outputs = DenseAutoencoder(2, 1, 16, (2, 2, 3, 3), 4, 2).train(), []
    _evaluator(network, ReconstructionInferer(), outputs).run()
    assert network.training
    expected = ReconstructionInferer()(IMAGES, network)
    assert len(outputs) == 5
    for i, sample in enumerate(outputs):
        assert set(sample) == {"image", "label", "target", "patient", "anomaly_map", "score", "reconstruction"}
        assert sample["patient"] == f"p{i}" and int(sample["target"]) == i % 2
        assert sample["anomaly_map"].shape == (1, 16, 16) and sample["score"].shape == (1,)
        for key, value in expected.items():
            torch.testing.assert_close(sample[key], value[i])


def test_score_batch_with_an_inferer_of_one_tensor() -> None:
    class Double(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 2 * image

    outputs: list[Any] = []
    _evaluator(Double(), SimpleInferer(), outputs).run()
    torch.testing.assert_close(torch.stack([sample["pred"] for sample in outputs]), 2 * IMAGES)


def test_device_of_rank() -> None:
    device = device_of_rank()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device.index == (idist.get_local_rank() if torch.cuda.is_available() else None)
