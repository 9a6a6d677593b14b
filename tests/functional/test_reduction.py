# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from monai_anomaly.functional import max_score, mean_score, top_fraction_score

REDUCTIONS = [mean_score, max_score, top_fraction_score]


def slow_scores(anomaly_map: Tensor, foreground: Tensor | None, fraction: Fraction) -> list[tuple[float, float, float]]:
    """Mean, maximum, and mean of the largest values of each image, by sorting lists."""
    scores = []
    for i, image in enumerate(anomaly_map):
        values = image.flatten().tolist()
        if foreground is not None:
            inside = (foreground[i].flatten() > 0).tolist()
            values = [v for v, keep in zip(values, inside, strict=True) if keep]
        count = max(1, math.ceil(len(values) * fraction))
        top = sorted(values, reverse=True)[:count]
        scores.append((sum(values) / len(values), max(values), sum(top) / count))
    return scores


@pytest.mark.parametrize("shape", [(3, 1, 7, 5), (2, 1, 4, 3, 5)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("fraction", [Fraction(1, 1000), Fraction(1, 8), Fraction(1, 4), Fraction(5, 8), Fraction(1)])
def test_equal_to_sorted_lists(shape: tuple[int, ...], masked: bool, fraction: Fraction) -> None:
    generator = torch.Generator().manual_seed(1)
    anomaly_map = torch.randn(shape, generator=generator, dtype=torch.float64)
    foreground = (torch.rand(shape, generator=generator) < 0.6).float() if masked else None
    results = [
        mean_score(anomaly_map, foreground),
        max_score(anomaly_map, foreground),
        top_fraction_score(anomaly_map, foreground, fraction=float(fraction)),
    ]
    for column, result in enumerate(results):
        assert result.shape == (shape[0], 1) and result.dtype == anomaly_map.dtype
        expected = [row[column] for row in slow_scores(anomaly_map, foreground, fraction)]
        assert result[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_fraction_goes_from_maximum_to_mean() -> None:
    anomaly_map = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(top_fraction_score(anomaly_map, fraction=1e-9), max_score(anomaly_map))
    torch.testing.assert_close(top_fraction_score(anomaly_map, fraction=0.0), max_score(anomaly_map))
    torch.testing.assert_close(top_fraction_score(anomaly_map, fraction=1.0), mean_score(anomaly_map))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_background_does_not_count(reduction: Callable[..., Tensor]) -> None:
    anomaly_map = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    foreground = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    foreground[..., 1:4, 2:5] = True
    changed = torch.where(foreground, anomaly_map, torch.tensor(1e6))
    torch.testing.assert_close(reduction(changed, foreground), reduction(anomaly_map, foreground))
    # a single pixel of foreground is its own score
    foreground[1] = False
    foreground[1, 0, 2, 3] = True
    assert float(reduction(changed, foreground)[1]) == float(anomaly_map[1, 0, 2, 3])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_undefined_pixels_show_in_the_score(reduction: Callable[..., Tensor]) -> None:
    anomaly_map = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    anomaly_map[1, 0, 2, 2] = math.nan
    assert reduction(anomaly_map).isnan().flatten().tolist() == [False, True]
    foreground = torch.ones_like(anomaly_map)
    assert reduction(anomaly_map, foreground).isnan().flatten().tolist() == [False, True]
    foreground[1, 0, 2, 2] = 0
    assert not bool(reduction(anomaly_map, foreground).isnan().any())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_reaches_the_pixels_that_count(reduction: Callable[..., Tensor]) -> None:
    anomaly_map = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    foreground = torch.ones(2, 1, 3, 4)
    foreground[:, :, 0] = 0
    assert torch.autograd.gradcheck(lambda m: reduction(m, foreground), anomaly_map.requires_grad_())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_errors(reduction: Callable[..., Tensor]) -> None:
    anomaly_map = torch.rand(2, 1, 4, 4)
    for wrong in (torch.rand(2, 3, 4, 4), torch.rand(2, 1)):
        with pytest.raises(ValueError, match=r"\(B, 1, \*S\), got shape"):
            reduction(wrong)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 4\), got \(2, 1, 4, 5\)"):
        reduction(anomaly_map, torch.ones(2, 1, 4, 5))
    foreground = torch.ones(2, 1, 4, 4)
    foreground[1] = 0
    with pytest.raises(ValueError, match="empty foreground"):
        reduction(anomaly_map, foreground)


@pytest.mark.parametrize("fraction", [-0.1, 1.01, math.nan])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        top_fraction_score(torch.rand(1, 1, 4, 4), fraction=fraction)
