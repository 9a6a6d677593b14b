# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_anomaly.functional import feature_ssim_error
from monai_anomaly.losses import FeatureSimilarityLoss
from monai_anomaly.networks.blocks import FeatureOutput

DRAW = torch.Generator().manual_seed(0)
MADE, WANTED = (torch.randn(2, 3, 6, 6, generator=DRAW) for _ in range(2))


@pytest.mark.parametrize("compat", [None, "upd"])
def test_it_is_the_mean_of_the_map(compat: str | None) -> None:
    output = FeatureOutput([MADE.clone().requires_grad_()], [WANTED])
    per_place = FeatureSimilarityLoss(3, compat, reduction="none")(output)
    assert torch.equal(per_place, feature_ssim_error(output.prediction[0], WANTED, win_size=3, compat=compat))
    value = FeatureSimilarityLoss(3, compat)(output, WANTED)
    assert float(value) == pytest.approx(sum(per_place.flatten().tolist()) / per_place.numel(), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, output.prediction[0])
    (wanted,) = torch.autograd.grad(per_place.sum(), output.prediction[0])
    torch.testing.assert_close(gradient, wanted / per_place.numel())


def test_what_is_rebuilt_exactly_costs_nothing() -> None:
    assert float(FeatureSimilarityLoss()(FeatureOutput([WANTED], [WANTED]))) == pytest.approx(0, abs=1e-6)


def test_wrong_arguments_and_what_it_says_of_itself() -> None:
    with pytest.raises(ValueError, match="compat must be None or 'upd', got 'mkd'"):
        FeatureSimilarityLoss(compat="mkd")
    with pytest.raises(ValueError, match="reduction must be one of"):
        FeatureSimilarityLoss(reduction="max")
    assert repr(FeatureSimilarityLoss(compat="upd")) == "FeatureSimilarityLoss(win_size=5, compat=upd)"
