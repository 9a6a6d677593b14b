# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.blocks.outputs import LikelihoodOutput
from ._reduced import ReducedLoss


class LikelihoodLoss(ReducedLoss):
    """How unlikely the features of healthy images are, the mean over the places, added up over the layers.

    ``sum over layers, mean over places of -log(1 / (1 + exp(-l)))`` with the log-likelihood l, divided by the number of
    channels, for each image.

    Differs from the paper, whose loss is ``-l`` itself: its published code and the study of
    Lagogiannis et al., IEEE TMI 2023, have the logistic function around it, by which places that are likely already
    count little. ``form="likelihood"`` leaves it out.

    Args:
        form: ``"log_sigmoid"`` (default) or ``"likelihood"``.
        reduction: ``"mean"`` (default) or ``"sum"`` over the images, or ``"none"``, one value an image (B,).

    Raises:
        ValueError: when ``form`` or ``reduction`` is unknown.

    Reference:
        D. Gudovskiy, S. Ishizaka, K. Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
        Conditional Normalizing Flows", WACV 2022.

    Example:
        >>> import torch
        >>> from monai_anomaly.losses import LikelihoodLoss
        >>> from monai_anomaly.networks.blocks import LikelihoodOutput
        >>> output = LikelihoodOutput([torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 2, 2)], torch.zeros(2))
        >>> round(float(LikelihoodLoss()(output)), 4)  # twice the logarithm of 2
        1.3863
    """

    def __init__(self, form: str = "log_sigmoid", reduction: str = "mean") -> None:
        super().__init__(reduction)
        if form not in ("log_sigmoid", "likelihood"):
            raise ValueError(f"form must be 'log_sigmoid' or 'likelihood', got {form!r}.")
        self.form = form

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"form={self.form!r}"

    def forward(self, prediction: LikelihoodOutput, target: Tensor | None = None) -> Tensor:
        """Loss of what a flow returned.

        Args:
            prediction: the output.
            target: not used; a likelihood has none.
        """
        values = prediction.log_likelihood
        if self.form == "log_sigmoid":
            values = [F.logsigmoid(each) for each in values]
        return self.reduce(-torch.stack([each.flatten(1).mean(1) for each in values], 1).sum(1))
