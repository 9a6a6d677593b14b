# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import FocalLoss
from torch import Tensor
from torch.nn.modules.loss import _Loss

from ..functional.errors import enlarged
from ..networks.blocks.outputs import DenoisingOutput, FeatureOutput
from .feature_direction_loss import FeatureDirectionLoss


class SegmentationGuidedLoss(_Loss):
    """Loss of a denoising student, and of the head that segments where it fails.

    While the student is trained, and gives no logits: the cosine distance of its features and its teacher's,
    ``sum over maps, mean over places (1 - cos)``, the mean over the images. While the head is:
    ``mean of -(1 - p)^gamma log p, plus mean |M - q|``, with q its probability of "abnormal", M the mask of the
    synthetic anomaly at its places, and p the probability of what M says.

    A place is abnormal in M where at least half of its pixels are.

    Args:
        gamma: exponent of the focal loss, 0 or more; paper's default 4.
        compat: ``"destseg"`` for what the published code does: the loss of the student is the sum over the images of a
            batch, and the mask is interpolated linearly between the pixels around the middle of a place, all others
            left out, before it is cut at one half.

    Raises:
        ValueError: when ``gamma`` is negative or ``compat`` unknown.

    Reference:
        X. Zhang, S. Li, X. Li, P. Huang, J. Shan, T. Chen: "DeSTSeg: Segmentation Guided Denoising Student-Teacher for
        Anomaly Detection", CVPR 2023, Sections 3.2 and 3.3.

    Example:
        >>> import torch
        >>> from monai_anomaly.losses import SegmentationGuidedLoss
        >>> from monai_anomaly.networks.blocks import DenoisingOutput
        >>> mask = torch.ones(2, 1, 8, 8)
        >>> round(float(SegmentationGuidedLoss()(DenoisingOutput([], [], torch.zeros(2, 1, 4, 4)), mask)), 4)
        0.5433
    """

    def __init__(self, gamma: float = 4.0, compat: str | None = None) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more, got {gamma}.")
        if compat not in (None, "destseg"):
            raise ValueError(f"compat must be None or 'destseg', got {compat!r}.")
        self.gamma = gamma
        self.compat = compat
        self.student = FeatureDirectionLoss(reduction="mean" if compat is None else "sum")
        self.focal = FocalLoss(gamma=gamma)

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"gamma={self.gamma}, compat={self.compat}"

    def forward(self, prediction: DenoisingOutput, target: Tensor) -> Tensor:
        """Loss of what a denoising student returned.

        Args:
            prediction: the output.
            target: where the synthetic anomaly is (B, 1, *S), in [0, 1].
        """
        if prediction.logits is None:
            student: Tensor = self.student(FeatureOutput(prediction.prediction, prediction.target))
            return student
        mask = self._mask(target, prediction.logits.shape[2:])
        focal: Tensor = self.focal(prediction.logits, mask)
        return focal + F.l1_loss(torch.sigmoid(prediction.logits), mask)

    def _mask(self, mask: Tensor, size: Sequence[int]) -> Tensor:
        """Mask (B, 1, *G) at the places of the head."""
        coarse = F.interpolate(mask, tuple(size), mode="area") if self.compat is None else enlarged(mask, size)
        return (coarse >= 0.5).to(mask.dtype)
