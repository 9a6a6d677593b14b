# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_anomaly.functional.score_bins import bin_lower_edges, score_bins, subnormal_bins


def _scores() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    magnitude = 10.0 ** (torch.rand(5000, generator=generator, dtype=torch.float64) * 70 - 35)
    signed = magnitude * torch.randn(5000, generator=generator).sign()
    extremes = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-42, -1e-42, 3.4e38, -3.4e38, 1.0, -1.0])
    return torch.cat([signed.float(), extremes])


@pytest.mark.parametrize("bits", [10, 13, 16, 20, 24])
def test_bins_keep_the_order_and_hold_their_scores(bits: int) -> None:
    scores = _scores().sort().values
    bins = score_bins(scores, bits).long()
    assert bool((bins.diff() >= 0).all())
    assert int(bins.min()) >= 0 and int(bins.max()) < 2**bits
    edges = bin_lower_edges(bits)
    finite = torch.isfinite(scores)
    assert bool((edges[bins[finite]] <= scores[finite]).all())
    # the next edge may be the first of the bins that hold no number
    above = edges[(bins[finite] + 1).clamp(max=2**bits - 1)]
    assert bool(((scores[finite] < above) | above.isnan()).all())


def test_bins_are_narrow_relative_to_their_scores() -> None:
    scores = _scores()
    scores = scores[torch.isfinite(scores) & (scores.abs() > 1.2e-38) & (scores.abs() < 1e38)].double()
    bins = score_bins(scores.float(), 16).long()
    edges = bin_lower_edges(16).double()
    width = edges[bins + 1] - edges[bins]
    assert float((width / scores.abs()).max()) <= 2.0**-7


def test_zero_has_one_bin_whatever_its_sign() -> None:
    zero, negative_zero = score_bins(torch.tensor([0.0, -0.0]))
    assert zero == negative_zero
    bins = range(2**16)[subnormal_bins(16)]
    tiny = score_bins(torch.tensor([1e-42, -1e-42, 1.17e-38, -1.17e-38, 0.0]))
    assert all(int(b) in bins for b in tiny)
    assert not any(int(b) in bins for b in score_bins(torch.tensor([1.1755e-38, -1.1755e-38])))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.\.24"):
        score_bins(torch.zeros(2), 9)
    with pytest.raises(ValueError, match="float32"):
        score_bins(torch.zeros(2, dtype=torch.float64))
