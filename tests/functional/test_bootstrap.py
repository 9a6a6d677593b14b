# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch

from monai_anomaly.functional.bootstrap import (
    bootstrap_counts,
    bootstrap_scores,
    draw_multiplicities,
    percentile_interval,
)
from monai_anomaly.functional.curves import (
    average_precision,
    average_precision_from_counts,
    roc_auc,
    roc_auc_from_counts,
)

AUROC = {"auroc": roc_auc_from_counts}
BOTH = {"auroc": roc_auc_from_counts, "ap": average_precision_from_counts}


def _cohort(seed: int, patients: int, images: int, shared: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores of two normal classes one standard deviation apart; ``shared`` of the variance belongs to the patient."""
    generator = torch.Generator().manual_seed(seed)
    patient = torch.arange(patients).repeat_interleave(images)
    targets = patient % 2
    own = torch.randn(patients * images, generator=generator, dtype=torch.float64)
    common = torch.randn(patients, generator=generator, dtype=torch.float64)[patient]
    return targets + math.sqrt(1 - shared) * own + math.sqrt(shared) * common, targets, patient


def test_draws_equal_the_metric_of_the_copied_images() -> None:
    scores, targets, patient = _cohort(0, 9, 3, 0.5)
    scores = scores.round(decimals=1)
    multiplicities = draw_multiplicities(9, 40, torch.Generator().manual_seed(5)).to(torch.int64)
    expected = {"auroc": [], "ap": []}
    for draw in multiplicities:
        times = draw[patient]
        copied, labels = scores.repeat_interleave(times), targets.repeat_interleave(times)
        expected["auroc"].append(roc_auc(copied, labels))
        expected["ap"].append(average_precision(copied, labels))
    got = bootstrap_scores(BOTH, scores, targets, patient, num_draws=40, seed=5)
    for name, values in expected.items():
        want = percentile_interval(0.5, torch.tensor(values, dtype=torch.float64))
        assert got[name]["low"] == pytest.approx(want["low"], abs=1e-12)
        assert got[name]["high"] == pytest.approx(want["high"], abs=1e-12)
    assert got["auroc"]["value"] == pytest.approx(roc_auc(scores, targets), abs=1e-14)


def test_every_draw_holds_as_many_patients() -> None:
    draws = draw_multiplicities(7, 500, torch.Generator().manual_seed(0))
    assert bool((draws.sum(1) == 7).all())
    assert float(draws.mean()) == 1.0
    assert float(draws.var()) == pytest.approx(6 / 7, abs=0.05)


def test_order_of_images_changes_no_bit_and_the_seed_does() -> None:
    scores, targets, patient = _cohort(1, 10, 2, 0.5)
    names = [f"p{int(p)}" for p in patient]
    first = bootstrap_scores(BOTH, scores, targets, names, num_draws=200, seed=3)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    again = bootstrap_scores(BOTH, scores[order], targets[order], [names[i] for i in order], num_draws=200, seed=3)
    assert first == again
    assert bootstrap_scores(BOTH, scores, targets, names, num_draws=200, seed=4) != first


def test_interval_covers_the_known_value() -> None:
    # two normal distributions one standard deviation apart: AUROC is Phi(1 / sqrt(2))
    truth = 0.5 * (1.0 + math.erf(0.5))
    covered = 0
    for seed in range(60):
        scores, targets, patient = _cohort(seed, 120, 1, 0.0)
        interval = bootstrap_scores(AUROC, scores, targets, patient, num_draws=200)["auroc"]
        covered += interval["low"] <= truth <= interval["high"]
    # the binomial distribution of 60 trials at 95 % leaves 51..60 out once in ten thousand times
    assert 51 <= covered <= 60


def test_interval_over_patients_covers_clustered_images_where_one_over_images_does_not() -> None:
    truth = 0.5 * (1.0 + math.erf(0.5))
    covered = {"patients": 0, "images": 0}
    widths = {"patients": 0.0, "images": 0.0}
    for seed in range(40):
        scores, targets, patient = _cohort(seed, 60, 6, 0.9)
        units = {"patients": patient, "images": torch.arange(len(patient))}
        for name, unit in units.items():
            interval = bootstrap_scores(AUROC, scores, targets, unit, num_draws=200)["auroc"]
            covered[name] += interval["low"] <= truth <= interval["high"]
            widths[name] += interval["high"] - interval["low"]
    assert covered["patients"] >= 34 > covered["images"]
    assert widths["patients"] > 1.8 * widths["images"]


def test_draws_without_a_class_are_dropped_and_counted() -> None:
    scores, targets = torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0, 0, 1])
    interval = bootstrap_scores(AUROC, scores, targets, ["a", "b", "c"], num_draws=500)["auroc"]
    draws = draw_multiplicities(3, 500, torch.Generator().manual_seed(0))
    undefined = (draws[:, 2] == 0) | (draws[:, 2] == 3)
    assert interval["dropped"] == int(undefined.sum()) > 0
    assert (interval["value"], interval["low"], interval["high"]) == (1.0, 1.0, 1.0)


def test_no_interval_where_none_can_be_given() -> None:
    scores, targets = torch.rand(6), torch.tensor([0, 0, 0, 1, 1, 1])
    one_patient = bootstrap_scores(AUROC, scores, targets, ["a"] * 6)["auroc"]
    assert (one_patient["low"], one_patient["high"]) == (None, None)
    no_draws = bootstrap_scores(AUROC, scores, targets, list("abcdef"), num_draws=0)["auroc"]
    assert (no_draws["low"], no_draws["high"]) == (None, None)
    one_class = bootstrap_scores(AUROC, scores, torch.zeros(6), list("abcdef"))["auroc"]
    assert math.isnan(one_class["value"]) and one_class["low"] is None
    assert math.isnan(bootstrap_scores(AUROC, scores[:0], targets[:0], [])["auroc"]["value"])


def test_chunks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets, patient = _cohort(2, 12, 2, 0.5)
    whole = bootstrap_scores(AUROC, scores, targets, patient, num_draws=100)
    monkeypatch.setattr("monai_anomaly.functional.bootstrap._CHUNK_ELEMENTS", 24 * 7)
    assert bootstrap_scores(AUROC, scores, targets, patient, num_draws=100) == whole


def test_table_of_counts_gives_the_interval_of_the_scores() -> None:
    scores, targets, patient = _cohort(3, 20, 5, 0.5)
    scores = scores.round(decimals=1)
    distinct, group = torch.unique(scores, return_inverse=True)
    tables = []
    for wanted in (1, 0):
        table = torch.zeros(20, len(distinct), dtype=torch.int64)
        table.index_put_((patient, len(distinct) - 1 - group), (targets == wanted).long(), accumulate=True)
        tables.append(table)
    expected = bootstrap_scores(BOTH, scores, targets, patient, num_draws=100)
    values = {name: interval["value"] for name, interval in expected.items()}
    got = bootstrap_counts(BOTH, tables, values, num_draws=100)
    for name in BOTH:
        assert got[name]["low"] == pytest.approx(expected[name]["low"], abs=1e-12)
        assert got[name]["high"] == pytest.approx(expected[name]["high"], abs=1e-12)
    # coarse bins shift all draws alike; the interval follows the exact value
    shifted = bootstrap_counts(BOTH, tables, {name: value - 0.01 for name, value in values.items()}, num_draws=100)
    assert shifted["auroc"]["low"] == pytest.approx(expected["auroc"]["low"] - 0.01, abs=1e-12)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one entry per score"):
        bootstrap_scores(AUROC, torch.rand(3), torch.tensor([0, 1, 1]), ["a"])
    with pytest.raises(ValueError, match="level"):
        percentile_interval(0.5, torch.rand(9), level=1.0)
