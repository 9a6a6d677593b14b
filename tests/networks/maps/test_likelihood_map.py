# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from monai_anomaly.networks.blocks import LikelihoodOutput
from monai_anomaly.networks.maps import likelihood_map


def output(*axes: int) -> LikelihoodOutput:
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 1, *(n // step for n in axes), generator=draw, dtype=torch.float64) for step in (2, 1)]
    return LikelihoodOutput(maps, torch.tensor([0.3, 0.8], dtype=torch.float64))


def interpolated(values: Tensor, size: tuple[int, ...], corners: bool) -> np.ndarray:
    """Linear interpolation of one map, with the border going on."""
    small = values.shape
    grids, asked = [np.arange(n) for n in small], []
    for old, new in zip(small, size, strict=True):
        at = np.arange(new) * (old - 1) / (new - 1) if corners else (np.arange(new) + 0.5) * old / new - 0.5
        asked.append(np.clip(at, 0, old - 1))
    places = np.stack(np.meshgrid(*asked, indexing="ij"), -1)
    return RegularGridInterpolator(grids, values.numpy())(places)


@pytest.mark.parametrize("compat", [None, "upd"])
@pytest.mark.parametrize("size", [(8, 6), (4, 8, 6)])
def test_map_is_that_of_the_formula(size: tuple[int, ...], compat: str | None) -> None:
    given = output(*size)
    found = likelihood_map(given, list(size), compat)
    assert found.shape == (2, 1, *size)
    for image in range(2):
        shares = []
        for layer, peak in zip(given.log_likelihood, given.peak.tolist(), strict=True):
            share = layer[image, 0].clone().apply_(lambda x, peak=peak: math.exp(x - peak))
            if compat is None:
                share = share.apply_(lambda x: min(x, 1.0))
            shares.append(interpolated(share, size, corners=compat == "upd"))
        np.testing.assert_allclose(found[image, 0].numpy(), 1 - sum(shares) / 2, atol=1e-12)
    assert (float(found.min()) < 0) is (compat == "upd"), "only the published code exceeds the range"


def test_it_is_the_map_of_the_paper_where_the_peaks_are_those_of_the_images() -> None:
    given = output(8, 6)
    given = given._replace(peak=torch.stack([each.max() for each in given.log_likelihood]))
    sums = [torch.nn.functional.interpolate((x - x.max()).exp(), (8, 6), mode="bilinear") for x in given.log_likelihood]
    paper = torch.stack(sums).sum(0).max() - torch.stack(sums).sum(0)
    found = likelihood_map(given, [8, 6])
    torch.testing.assert_close((found - found.min()) * 2, paper)


def test_unknown_compat_is_refused() -> None:
    with pytest.raises(ValueError, match="compat must be None or 'upd', got 'paper'"):
        likelihood_map(output(4, 4), [4, 4], "paper")
