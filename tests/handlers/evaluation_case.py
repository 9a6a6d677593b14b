# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, Resized
from torch import Tensor
from torch.utils.data import Subset

from monai_anomaly.data import AnomalyDataset, load_datalist, make_phantom
from monai_anomaly.engines import score_batch
from monai_anomaly.transforms import LoadImageCheckedd, PrepareLabeld, ScaleSourceRanged

SIZE = (24, 16)
COUNT = 9


class Blurrer(torch.nn.Module):
    """The smallest network that reconstructs: a mean of neighbors."""

    def forward(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 3, 1, 1)


def infer(image: Tensor, network: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    reconstruction = network(image)
    anomaly_map = (image - reconstruction).abs().mean(1, keepdim=True)
    return {"anomaly_map": anomaly_map, "score": anomaly_map.mean((1, 2, 3))[:, None], "reconstruction": reconstruction}


def phantom(folder: Path) -> Path:
    """A data set whose testing section has nine pictures, four of them with masks of lesions."""
    make_phantom(folder, size=(36, 24), num_training=0, num_unlabeled=0, num_validation=0, num_testing=COUNT)
    return folder


def dataset(folder: Path, edit: Callable[[list[dict[str, Any]]], None] | None = None) -> AnomalyDataset:
    items = load_datalist(folder / "datalist.json", "testing", folder)
    if edit is not None:
        edit(items)
    images = [
        LoadImageCheckedd("image", 2, 1),
        PrepareLabeld("label"),
        ScaleSourceRanged("image"),
        Resized("image", SIZE, mode="area"),
        Resized("label", SIZE, mode="nearest-exact"),
    ]
    return AnomalyDataset(items, Compose(images))


def evaluate(
    samples: AnomalyDataset, handlers: Sequence[Any], order: Sequence[int] = range(COUNT)
) -> SupervisedEvaluator:
    """Run a real evaluation over the samples in some order."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Subset(samples, list(order)), batch_size=2, num_workers=0),
        network=Blurrer(),
        inferer=infer,
        iteration_update=score_batch,
        val_handlers=list(handlers),
    )
    evaluator.run()
    return evaluator
