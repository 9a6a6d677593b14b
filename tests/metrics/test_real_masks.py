# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixel metrics on real annotations: boxes, outlines and lesions, with the intensity itself as the anomaly map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomaly.data import load_datalist
from monai_anomaly.data.convert_csv import convert_csv
from monai_anomaly.metrics import PixelAccumulator, PixelAPMetric, PixelAUROCMetric, PixelPROMetric
from monai_anomaly.transforms import LoadImageChecked, PrepareLabel

SETS = {
    "nih": ("cxr/index.csv", ["source=nih"], []),
    "lgg_flair": ("brain/lgg_flair.csv", [], ["matched=1"]),
    "idrid": ("fundus/index.csv", ["source=idrid"], []),
}


def maps_and_labels(name: str, data: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Brightness and annotation of every annotated test image, (N, 1, H, W)."""
    index, where, where_eval = SETS[name]
    convert_csv(data / index, folder / "list.json", where=where, where_eval=where_eval)
    maps, labels = [], []
    for item in load_datalist(folder / "list.json", "testing", (data / index).parent):
        image = LoadImageChecked(spatial_dims=2)(item["image"])
        label = PrepareLabel()(image, item.get("label"), item["target"])
        if float(label.max()) >= 0:
            maps.append(image.as_tensor().mean(0, keepdim=True))
            labels.append(label.as_tensor())
    return torch.stack(maps), torch.stack(labels)


@pytest.mark.parametrize("name", SETS)
def test_exact_equals_scikit_learn_and_streaming_keeps_its_bound(name: str, shared_data: Path, tmp_path: Path) -> None:
    maps, labels = maps_and_labels(name, shared_data, tmp_path)
    truth, scores = labels.flatten().numpy(), maps.flatten().numpy()
    exact, streaming = PixelAccumulator("exact"), PixelAccumulator("streaming", bits=12)
    for start in range(0, len(maps), 50):
        for accumulator in (exact, streaming):
            accumulator.update(maps[start : start + 50], labels[start : start + 50])
    found = {metric: metric(exact).aggregate() for metric in (PixelAUROCMetric, PixelAPMetric, PixelPROMetric)}
    assert found[PixelAUROCMetric] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert found[PixelAPMetric] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    for metric, value in found.items():
        streamed = metric(streaming)
        assert abs(streamed.aggregate() - value) <= streamed.error_bound + 1e-9
    if name == "lgg_flair":  # what the data's README says of raw brightness on these slices
        assert found[PixelAPMetric] == pytest.approx(0.09, abs=0.005)
        assert found[PixelAUROCMetric] == pytest.approx(0.93, abs=0.005)
        assert np.isclose(labels.mean(), 0.012, atol=0.001)
