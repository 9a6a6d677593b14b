# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.data import MetaTensor

from monai_anomaly.functional import max_score, top_fraction_score
from monai_anomaly.transforms.postprocessing import ResizeToSourced, ScoreMapd


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


def test_takes_what_an_inferer_gave_where_the_map_would_be() -> None:
    fields = {"anomaly_map": torch.rand(1, 4, 5), "score": torch.tensor([7.0]), "reconstruction": torch.ones(3, 4, 5)}
    given = {"pred": fields, "patient": "a"}
    result = ScoreMapd("pred", result_key="result")(given)
    assert torch.equal(result["pred"], fields["anomaly_map"]) and torch.equal(result["anomaly_map"], result["pred"])
    assert float(result["score"]) == 7.0 and result["result"] == {"score": 7.0}, "the inferer's own score counts"
    assert torch.equal(result["reconstruction"], fields["reconstruction"]) and given["pred"] is fields
    with pytest.raises(ValueError, match=r"'pred' must be a map or hold 'anomaly_map', got the fields \['score'\]"):
        ScoreMapd("pred")({"pred": {"score": 1}})


def test_takes_the_fields_of_this_packages_evaluators() -> None:
    flat = {"anomaly_map": torch.full((1, 4, 5), 2.0), "score": torch.tensor([7.0])}
    assert ScoreMapd("pred")(flat) == flat
    assert float(ScoreMapd("pred")({"anomaly_map": flat["anomaly_map"]})["score"]) == 2.0


def test_a_score_that_is_not_of_the_map_is_not_made_up() -> None:
    scorer = ScoreMapd("pred", reduction=None, result_key="result")
    assert set(scorer({"pred": torch.ones(1, 4, 5)})) == {"pred", "anomaly_map"}
    told = scorer({"pred": {"anomaly_map": torch.ones(1, 4, 5), "score": torch.tensor([3.0])}, "result": {"a": 1}})
    assert told["result"] == {"a": 1, "score": 3.0}


def test_maps_go_back_to_the_image_that_came_in() -> None:
    affine = torch.diag(torch.tensor([-2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, 8, 12), affine=affine.clone())
    image.meta |= {"spatial_shape": [8, 12], "original_affine": affine.numpy()}
    image.meta["filename_or_obj"] = "a.nii.gz"
    values = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(0))
    result = ResizeToSourced("pred")({"pred": values, "image": image})["pred"]
    assert torch.equal(result.as_tensor(), values[0]) and torch.equal(result.affine, affine)
    with pytest.raises(ValueError, match=r"one channel \(1, \*S\), got shape \(2, 8, 12\)"):
        ResizeToSourced("pred")({"pred": values.expand(2, -1, -1), "image": image})
    with pytest.raises(ValueError, match="'pred' of a.nii.gz holds NaN"):
        ResizeToSourced("pred")({"pred": values * float("nan"), "image": image})
    with pytest.raises(KeyError):
        ResizeToSourced("pred")({"image": image})
    assert ResizeToSourced("pred", allow_missing_keys=True)({"a": 1}) == {"a": 1}
