# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""How MONAI's focal loss relates to DRAEM's: what a network trained on Perlin textures has to be given as weight."""

from __future__ import annotations

import torch
from monai.losses import FocalLoss


def draem_focal(logits: torch.Tensor, mask: torch.Tensor, gamma: float = 2.0, smooth: float = 0.0) -> torch.Tensor:
    """Mean over the pixels of ``-(1 - p)^gamma log p``, p the probability of the true one of two classes."""
    probabilities = torch.softmax(logits, dim=1)
    onehot = torch.cat([1 - mask, mask], dim=1).clamp(smooth, 1 - smooth)
    p = (onehot * probabilities).sum(1) + smooth
    return (-((1 - p) ** gamma) * p.log()).mean()


def test_it_is_exactly_half_of_draems_for_two_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 2, 16, 16, generator=generator)
    mask = (torch.rand(4, 1, 16, 16, generator=generator) < 0.1).float()
    values, gradients = [], []
    for loss in (
        lambda x: draem_focal(x, mask),
        lambda x: FocalLoss(include_background=True, to_onehot_y=True, gamma=2.0, use_softmax=True)(x, mask),
    ):
        x = logits.clone().requires_grad_()
        value = loss(x)
        value.backward()
        values.append(value.detach())
        gradients.append(x.grad)
    torch.testing.assert_close(values[0], 2 * values[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients[0], 2 * gradients[1], rtol=1e-4, atol=1e-8)
    # the published smoothing of 1e-5 shows only where a class is all but excluded
    torch.testing.assert_close(draem_focal(logits, mask, smooth=1e-5), values[0], rtol=0.02, atol=0)
