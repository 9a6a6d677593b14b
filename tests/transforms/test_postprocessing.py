# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.data import MetaTensor

from monai_anomaly.functional import max_score, top_fraction_score
from monai_anomaly.transforms.postprocessing import ScoreMapd


def test_names_the_map_and_its_score() -> None:
    anomaly_map = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    sample = {"pred": anomaly_map, "patient": "a"}
    result = ScoreMapd("pred")(sample)
    assert torch.equal(result["anomaly_map"], anomaly_map) and result["patient"] == "a"
    assert result["score"].shape == (1,)
    assert float(result["score"]) == pytest.approx(sum(anomaly_map.flatten().tolist()) / 20, abs=1e-6)
    assert set(sample) == {"pred", "patient"}, "the sample given must not change"
    assert float(ScoreMapd("pred", max_score)(sample)["score"]) == float(anomaly_map.max())
    half = ScoreMapd(["pred"], partial(top_fraction_score, fraction=0.5))(sample)["score"]
    assert float(half) == pytest.approx(sum(sorted(anomaly_map.flatten().tolist())[10:]) / 10, abs=1e-6)


def test_volumes_and_metadata() -> None:
    volume = MetaTensor(torch.rand(1, 3, 4, 5), meta={"filename_or_obj": "a.nii.gz"})
    result = ScoreMapd("pred")({"pred": volume})
    assert result["anomaly_map"].meta["filename_or_obj"] == "a.nii.gz"
    assert float(result["score"]) == pytest.approx(float(volume.mean()), abs=1e-6)


def test_keys() -> None:
    with pytest.raises(ValueError, match=r"one map, got \('a', 'b'\)"):
        ScoreMapd(["a", "b"])
    with pytest.raises(KeyError):
        ScoreMapd("pred")({"other": 1})
    assert ScoreMapd("pred", allow_missing_keys=True)({"other": 1}) == {"other": 1}
