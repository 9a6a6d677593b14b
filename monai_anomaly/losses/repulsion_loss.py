# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from ..functional.similarity import cka
from ..networks.blocks.outputs import EnsembleOutput
from ..utils import callable_name


class RepulsionLoss(_Loss):
    """A member's own loss plus its likeness to the members trained before: redundancy-aware repulsion.

    ``L = L_member + weight * mean_j similarity(P_j, Q)`` (Eqs. 1 and 4), where Q are the features of the member that
    learns and P_j those of the frozen ones. The first member has nothing to be repelled from.

    Args:
        member_loss: loss of one member's output against the image.
        similarity: scalar likeness of two feature sets (B, ...), such as :func:`monai_anomaly.functional.cka` (the
            paper's) or another column of Table 3.
        weight: lambda >= 0; 1 in the paper, 0 trains independent members.

    Raises:
        ValueError: when ``weight`` is negative.

    Reference:
        Gu et al., MICCAI 2024.

    Example:
        >>> from monai_anomaly.losses import ReconstructionLoss, RepulsionLoss
        >>> RepulsionLoss(ReconstructionLoss(), weight=0.5).weight
        0.5
    """

    def __init__(
        self,
        member_loss: nn.Module,
        similarity: Callable[[Tensor, Tensor], Tensor] = cka,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}.")
        self.member_loss = member_loss
        self.similarity = similarity
        self.weight = weight

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"similarity={callable_name(self.similarity)}, weight={self.weight}"

    def forward(self, prediction: EnsembleOutput, target: Tensor) -> Tensor:
        """Loss of what an ensemble returned against the image (B, C, *S), a scalar."""
        loss = self.member_loss(prediction.member, target)
        if prediction.senior_features is None or self.weight == 0:
            return loss
        likeness = [self.similarity(senior, prediction.member.features) for senior in prediction.senior_features]
        return loss + self.weight * torch.stack(likeness).mean()
