# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..networks.blocks.outputs import MaskedOutput
from ._reduced import ReducedLoss

_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "masked": lambda mask: mask,
    "visible": lambda mask: 1 - mask,
    "all": torch.ones_like,
}


class MaskedReconstructionLoss(ReducedLoss):
    """Squared error of reconstructed patches, averaged over a patch and then over the patches that count.

    Args:
        loss_on: patches that count: ``"masked"`` (default; the removed ones, as by He et al.), ``"visible"`` (those the
            network was shown: Eq. 3 of AMAE as its text defines the masks) or ``"all"``.
        norm_pix: whether each target patch is normalized by its own mean and its own (unbiased) variance, which helps
            pre-training but leaves predictions from which no image can be made; default False.
        reduction: ``"mean"`` (default) or ``"sum"`` over the images, or ``"none"``, one value an image (B,), the mean
            over its masks.

    Raises:
        ValueError: when ``loss_on`` or ``reduction`` is unknown.

    Reference:
        K. He et al.: "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. B. Bozorgtabar, D. Mahapatra, J.-P.
        Thiran: "AMAE", MICCAI 2023, Eq. 3.
    """

    def __init__(self, loss_on: str = "masked", norm_pix: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if loss_on not in _WEIGHTS:
            raise ValueError(f"loss_on must be one of {tuple(_WEIGHTS)}, got {loss_on!r}.")
        self.loss_on = loss_on
        self.norm_pix = norm_pix

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"loss_on={self.loss_on}, norm_pix={self.norm_pix}"

    def forward(self, prediction: MaskedOutput, target: Tensor | None = None) -> Tensor:
        """Loss of what a masked autoencoder returned.

        Args:
            prediction: the output. Some patches of every set must be removed and others shown, as the network sees to;
                the mask itself is not looked at, since that would make the device wait.
            target: not used; the target is the network's own input.
        """
        patches = prediction.target.float()
        if self.norm_pix:
            variance, mean = torch.var_mean(patches, -1, keepdim=True)
            patches = (patches - mean) / (variance + 1e-6).sqrt()
        error = (prediction.prediction.float() - patches.unsqueeze(1)).square().mean(-1)  # (B, L, T)
        weight = _WEIGHTS[self.loss_on](prediction.mask)
        return self.reduce(((error * weight).sum(-1) / weight.sum(-1)).mean(1))
