# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from monai_anomaly.functional import PseudoLabels, pseudo_labels, purity

MODES = ("per_predicted_class", "global")


def _toy(separation: float, number: int = 200_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Two unit Gaussians, 60 % anomalous, and the probability of equal priors."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.arange(number) % 5 < 3).long()
    values = torch.randn(number, generator=generator, dtype=torch.float64) + separation * targets
    return torch.sigmoid(separation * (values - separation / 2)), targets


@pytest.mark.parametrize(
    ("mode", "separation", "expected", "kept"),
    [
        ("per_predicted_class", 1.5, (0.84, 0.93), (0.22, 0.28)),
        ("global", 1.5, (0.66, 0.86), (0.5, 0.5)),
        ("per_predicted_class", 2.5, (0.98, 0.99), None),
        ("global", 2.5, (0.76, 0.96), (0.5, 0.5)),
    ],
)
def test_purities_of_two_gaussians(
    mode: str, separation: float, expected: tuple[float, float], kept: tuple[float, float] | None
) -> None:
    probabilities, targets = _toy(separation)
    labels = pseudo_labels(probabilities, 50, mode)  # type: ignore[arg-type]
    assert purity(labels, targets) == pytest.approx(expected, abs=0.01)
    shares = [len(positions) / len(targets) for positions in labels[:2]]
    if kept is not None:
        assert shares == pytest.approx(kept, abs=0.01)
    if mode == "global":
        assert sorted(torch.cat(labels[:2]).tolist()) == list(range(len(targets))), "every image is assigned, once"


def _slow(p: np.ndarray, percent: float, mode: str) -> tuple[list[int], list[int]]:
    """The percentiles of the definition, by NumPy."""
    chosen: list[list[int]] = []
    for confidence, predicted in ((1 - p, p < 0.5), (p, p >= 0.5)):
        competing = confidence[predicted] if mode == "per_predicted_class" else confidence
        threshold = np.percentile(competing, 100 - percent)
        chosen.append([i for i in range(len(p)) if confidence[i] >= threshold and (predicted[i] or mode == "global")])
    both = set(chosen[0]) & set(chosen[1])
    return [i for i in chosen[0] if i not in both or p[i] < 0.5], [i for i in chosen[1] if i not in both or p[i] >= 0.5]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("percent", [1, 10, 30, 50, 66.6, 90, 100])
@pytest.mark.parametrize("number", [2, 7, 40, 101])
def test_equals_the_percentiles(mode: str, percent: float, number: int) -> None:
    p = np.random.default_rng(number).random(number)
    p[:2] = 0.1, 0.8
    labels = pseudo_labels(torch.tensor(p), percent, mode)  # type: ignore[arg-type]
    normal, abnormal = _slow(p, percent, mode)
    assert labels.normal.tolist() == normal and labels.abnormal.tolist() == abnormal
    assert labels.normal.dtype == torch.int64
    assert labels.threshold_normal == pytest.approx(min(1 - p[normal]))
    assert labels.threshold_abnormal == pytest.approx(min(p[abnormal]))


def test_a_tie_at_the_threshold_is_kept_whole() -> None:
    p = torch.tensor([0.9, 0.8, 0.8, 0.6, 0.1, 0.2, 0.3, 0.4])
    assert pseudo_labels(p, 50).abnormal.tolist() == [0, 1, 2], "three of four: no order decides between equal ones"


@pytest.mark.parametrize("mode", MODES)
def test_many_ties_are_broken_by_rank(mode: str) -> None:
    p = torch.cat([torch.ones(60), torch.zeros(40)])
    labels = pseudo_labels(p, 50, mode)  # type: ignore[arg-type]
    wanted = (20, 30) if mode == "per_predicted_class" else (50, 50)
    # the percentile lies half-way between two ranks where their number is even
    assert [len(labels.normal), len(labels.abnormal)] == list(wanted)
    assert not set(labels.normal.tolist()) & set(labels.abnormal.tolist())
    again = pseudo_labels(p, 50, mode)  # type: ignore[arg-type]
    assert labels.abnormal.equal(again.abnormal)
    assert not set(labels.abnormal.tolist()) <= set(range(wanted[1])), "the order of the file does not decide"


def test_the_order_of_the_images_does_not_matter() -> None:
    p = torch.rand(50, generator=torch.Generator().manual_seed(3))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    labels, mixed = pseudo_labels(p), pseudo_labels(p[order])
    assert sorted(order[mixed.normal].tolist()) == labels.normal.tolist()
    assert sorted(order[mixed.abnormal].tolist()) == labels.abnormal.tolist()


def test_an_empty_class_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        labels = pseudo_labels([0.1, 0.2, 0.3])
    assert len(labels.normal) == 2 and labels.abnormal.shape == (0,) and math.isnan(labels.threshold_abnormal)
    assert [record.getMessage() for record in caplog.records] == ["none of 3 unlabeled images is taken as anomalous"]
    assert math.isnan(purity(labels, [0, 0, 1]).abnormal)


def test_one_half_counts_as_anomalous() -> None:
    assert pseudo_labels([0.5, 0.49]).abnormal.tolist() == [0]
    assert pseudo_labels([0.5, 0.5 - 1e-9]).abnormal.tolist() == [0], "numbers are not rounded to single precision"


def test_purity_is_told_only_of_a_class_that_is_all_known() -> None:
    labels = PseudoLabels(torch.tensor([0, 1]), torch.tensor([3, 4]), 0.5, 0.5)
    assert purity(labels, [0, 1, -1, 1, 1]) == (0.5, 1.0), "the image that is left out may be unknown"
    shares = purity(labels, [0, 1, 0, 1, -1])
    assert shares.normal == 0.5 and math.isnan(shares.abnormal)
    with pytest.raises(ValueError, match="N > 4"):
        purity(labels, [0, 1])


@pytest.mark.parametrize(
    ("probabilities", "text"),
    [
        ([], "N >= 1"),
        ([[0.5]], r"got shape \(1, 1\)"),
        ([0.1, math.nan], "got nan for image 1"),
        ([1.01], "got 1.01 for image 0"),
        ([0.2, -0.1], "got -0.1 for image 1"),
    ],
)
def test_wrong_probabilities(probabilities: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pseudo_labels(torch.tensor(probabilities, dtype=torch.float64))


@pytest.mark.parametrize("percent", [0, -1, 100.1, math.nan])
def test_wrong_percent(percent: float) -> None:
    with pytest.raises(ValueError, match=r"percent must be in \(0, 100\]"):
        pseudo_labels([0.5], percent)


def test_wrong_mode() -> None:
    with pytest.raises(ValueError, match="mode must be one of .* got 'local'"):
        pseudo_labels([0.5], mode="local")  # type: ignore[arg-type]
