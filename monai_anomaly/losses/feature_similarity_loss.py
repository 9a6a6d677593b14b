# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from torch import Tensor

from ..functional.feature_errors import feature_ssim_error
from ..networks.blocks.outputs import FeatureOutput
from ._reduced import ReducedLoss


class FeatureSimilarityLoss(ReducedLoss):
    """One minus the structural similarity of features and of what an autoencoder makes of them: the loss of FAE.

    Args:
        win_size: width of the Gaussian window in places, odd; default 5, as in the paper.
        compat: ``"upd"`` for the constants of the published code, see
            :func:`monai_anomaly.functional.feature_ssim_error`.
        reduction: ``"mean"`` (default) or ``"sum"``, or ``"none"``, which gives the map (B, C, *G).

    Raises:
        ValueError: when ``reduction`` or ``compat`` is unknown.

    Reference:
        F. Meissen, J. Paetzold, G. Kaissis, D. Rueckert: "Unsupervised Anomaly Localization with Structural
        Feature-Autoencoders", BrainLes at MICCAI 2022.
    """

    def __init__(self, win_size: int = 5, compat: str | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if compat not in (None, "upd"):
            raise ValueError(f"compat must be None or 'upd', got {compat!r}.")
        self.win_size = win_size
        self.compat = compat

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"win_size={self.win_size}, compat={self.compat}"

    def forward(self, prediction: FeatureOutput, target: Tensor | None = None) -> Tensor:
        """Loss of what a feature autoencoder returned.

        Args:
            prediction: the output, with one joined map.
            target: not used; the target is in the output.
        """
        (made,), (wanted,) = prediction
        return self.reduce(feature_ssim_error(made, wanted, win_size=self.win_size, compat=self.compat))
