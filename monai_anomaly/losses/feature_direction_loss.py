# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from torch import Tensor

from ..functional.feature_errors import direction_error, value_error
from ..networks.blocks.outputs import FeatureOutput
from ._reduced import ReducedLoss


class FeatureDirectionLoss(ReducedLoss):
    """How far the directions of a student's feature vectors are from its teacher's, added up over the layers.

    ``sum over layers (1 - cos) + value_weight * sum over layers (mean squared difference)`` for each image.

    - Reverse distillation (Deng, Li, CVPR 2022, Eqs. 1-2) compares vectors place by place and takes the mean. Its code,
      and that of the study of Lagogiannis et al., IEEE TMI 2023, takes each map as one vector: ``whole=True``.
    - Multiresolution knowledge distillation (Salehi et al., CVPR 2021, Eqs. 1-3) takes each map as one vector, and the
      squared differences, too: ``whole=True``. Differs from the paper, as its authors' code does: the weight is on the
      squared differences, which are the mean over a map, 0.01 in general and 0.5 on industrial images.

    Args:
        whole: whether all numbers of a map are one vector; default False: the vectors of its places.
        value_weight: of the squared differences, 0 (default) or more.
        reduction: ``"mean"`` (default) or ``"sum"`` over the images, or ``"none"``, one value an image (B,).

    Raises:
        ValueError: when ``reduction`` is unknown or ``value_weight`` negative.

    Example:
        >>> import torch
        >>> from monai_anomaly.losses import FeatureDirectionLoss
        >>> from monai_anomaly.networks.blocks import FeatureOutput
        >>> teacher = torch.rand(2, 8, 4, 4)
        >>> float(FeatureDirectionLoss()(FeatureOutput([3 * teacher], [teacher]))) < 1e-5
        True
    """

    def __init__(self, whole: bool = False, value_weight: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if value_weight < 0:
            raise ValueError(f"value_weight must be 0 or more, got {value_weight}.")
        self.whole = whole
        self.value_weight = value_weight

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"whole={self.whole}, value_weight={self.value_weight}"

    def forward(self, prediction: FeatureOutput, target: Tensor | None = None) -> Tensor:
        """Loss of what a student returned.

        Args:
            prediction: the output.
            target: not used; the teacher's features are in the output.
        """
        error = direction_error(prediction.prediction, prediction.target, self.whole)
        if self.value_weight:
            error = error + self.value_weight * value_error(prediction.prediction, prediction.target)
        return self.reduce(error.sum(1))
