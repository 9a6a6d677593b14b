# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_anomaly.functional import mask_of_kept, random_kept
from monai_anomaly.losses import MaskedReconstructionLoss
from monai_anomaly.networks.blocks import MaskedOutput

B, L, T, P = 3, 2, 8, 5


def random_output(requires_grad: bool = False) -> MaskedOutput:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(B, L, T, P, generator=generator, dtype=torch.float64).float()
    target = 3 * torch.randn(B, T, P, generator=generator, dtype=torch.float64).float() + 1
    mask = mask_of_kept(random_kept(B * L, T, 0.5, generator).reshape(B, L, -1), T)
    return MaskedOutput(prediction.requires_grad_(requires_grad), target, mask)


def slow_loss(output: MaskedOutput, loss_on: str, norm_pix: bool) -> list[float]:
    """One value an image, patch by patch."""
    prediction, target, mask = (np.asarray(t.detach(), np.float64) for t in output)
    values = []
    for b in range(B):
        of_masks = []
        for set_ in range(L):
            errors = []
            for t in range(T):
                patch = target[b, t]
                if norm_pix:
                    variance = sum((patch - patch.mean()) ** 2) / (P - 1)
                    patch = (patch - patch.mean()) / (variance + 1e-6) ** 0.5
                counts = {"masked": mask[b, set_, t] == 1, "visible": mask[b, set_, t] == 0, "all": True}[loss_on]
                if counts:
                    errors.append(sum((prediction[b, set_, t] - patch) ** 2) / P)
            of_masks.append(sum(errors) / len(errors))
        values.append(sum(of_masks) / L)
    return values


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("loss_on", ["masked", "visible", "all"])
def test_value_is_that_of_the_slow_formula(loss_on: str, norm_pix: bool) -> None:
    output = random_output()
    expected = slow_loss(output, loss_on, norm_pix)
    each = MaskedReconstructionLoss(loss_on, norm_pix, reduction="none")(output)
    assert each.tolist() == pytest.approx(expected, rel=1e-5)
    mean = MaskedReconstructionLoss(loss_on, norm_pix)(output, torch.empty(0))
    assert mean.item() == pytest.approx(sum(expected) / B, rel=1e-5)


@pytest.mark.parametrize("loss_on", ["masked", "visible", "all"])
def test_patches_that_do_not_count_get_no_gradient(loss_on: str) -> None:
    output = random_output(requires_grad=True)
    MaskedReconstructionLoss(loss_on)(output).backward()
    grad = output.prediction.grad
    counts = {"masked": output.mask == 1, "visible": output.mask == 0, "all": torch.ones_like(output.mask) == 1}
    assert grad is not None
    assert torch.equal((grad != 0).all(-1), counts[loss_on]) and torch.equal((grad != 0).any(-1), counts[loss_on])
    number = counts[loss_on].sum(-1, keepdim=True).unsqueeze(-1)
    expected = 2 * (output.prediction - output.target[:, None]) / (P * number * L * B) * counts[loss_on].unsqueeze(-1)
    torch.testing.assert_close(grad, expected.detach())


def test_normalized_patches_take_the_unbiased_variance() -> None:
    target = torch.tensor([[[0.0, 2.0], [0.0, 2.0]]])  # mean 1, unbiased variance 2 (biased: 1)
    normalized = torch.tensor([-1.0, 1.0]) / 2**0.5
    output = MaskedOutput(normalized.expand(1, 1, 2, 2), target, torch.tensor([[[1.0, 0.0]]]))
    assert MaskedReconstructionLoss(norm_pix=True)(output).item() == pytest.approx(0, abs=1e-10)


def test_half_precision_is_compared_in_full() -> None:
    output = random_output()
    half = output._replace(prediction=output.prediction.bfloat16())
    loss = MaskedReconstructionLoss()(half)
    assert loss.dtype == torch.float32
    assert loss.item() == MaskedReconstructionLoss()(half._replace(prediction=half.prediction.float())).item()


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be one of \('masked', 'visible', 'all'\), got 'hidden'"):
        MaskedReconstructionLoss("hidden")
    with pytest.raises(ValueError, match="reduction must be one of"):
        MaskedReconstructionLoss(reduction="median")
