# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomaly.metrics import (
    ImageAccumulator,
    ImageAPMetric,
    ImageAUROCMetric,
    compute_image_ap,
    compute_image_auroc,
)

METRICS = [
    (ImageAUROCMetric, compute_image_auroc, roc_auc_score),
    (ImageAPMetric, compute_image_ap, average_precision_score),
]


def _images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (50, 1), generator=generator)
    return (torch.randn(50, 1, generator=generator) + targets).round(decimals=1), targets


@pytest.mark.parametrize(("metric_class", "compute", "oracle"), METRICS)
def test_batches_in_any_order_equal_scikit_learn(metric_class, compute, oracle) -> None:
    scores, targets = _images()
    metric = metric_class()
    for part in torch.randperm(50, generator=torch.Generator().manual_seed(1)).split(8):
        metric(list(scores[part]), list(targets[part]))
    assert metric.aggregate() == pytest.approx(oracle(targets[:, 0], scores[:, 0]), abs=1e-12)
    assert metric.aggregate() == compute(scores, targets)
    assert metric.get_buffer().shape == (50, 2)
    metric.reset()
    metric(scores[:20], targets[:20])
    assert metric.aggregate() == compute(scores[:20], targets[:20])


@pytest.mark.parametrize(("metric_class", "compute", "oracle"), METRICS)
def test_missing_class_is_nan_with_a_warning_that_names_it(metric_class, compute, oracle) -> None:
    scores, _ = _images()
    for target, missing in ((0, "positive"), (1, "negative")):
        metric = metric_class()
        metric(scores, torch.full((50, 1), target))
        with pytest.warns(UserWarning, match=f"no {missing}"):
            assert math.isnan(metric.aggregate())


def test_metrics_share_an_accumulator_and_images_seen_twice_count_once() -> None:
    scores, targets = _images()
    images = ImageAccumulator()
    auroc, ap = ImageAUROCMetric(images), ImageAPMetric(images)
    auroc(scores, targets, indices=range(50))
    ap(scores[:7], targets[:7], indices=range(7))
    assert auroc.aggregate() == compute_image_auroc(scores, targets)
    assert ap.aggregate() == compute_image_ap(scores, targets)
    assert len(images.gathered().patients) == len(set(images.gathered().patients)) == 50


def test_images_without_patient_are_patients_of_their_own() -> None:
    images = ImageAccumulator()
    images.update(torch.rand(4), torch.tensor([0, 1, 0, 1]), ["a", None, "", "a"], [5, 6, 7, 8])
    images.update(torch.rand(2), torch.tensor([0, 1]))
    assert images.gathered().patients == ["a", "image 6", "image 7", "a", "image 0.4", "image 0.5"]


def test_bad_input_is_refused() -> None:
    images = ImageAccumulator()
    with pytest.raises(ValueError, match="one score per target"):
        images.update(torch.rand(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"index \[9\]"):
        images.update(torch.tensor([0.5, float("nan")]), torch.zeros(2), indices=[8, 9])
    with pytest.raises(ValueError, match="0 or 1"):
        images.update(torch.rand(3), torch.tensor([0, 1, 2]))
