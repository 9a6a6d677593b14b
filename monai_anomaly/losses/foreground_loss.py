# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ..functional.errors import l2_error
from ..functional.foreground import holds_signal
from ..networks.blocks.outputs import AutoencoderOutput
from ..utils import callable_name
from ._reduced import ReducedLoss


class ForegroundLoss(ReducedLoss):
    """Error between a reconstruction and its image, zero in the background: ``mean(error m)``.

    The mask m is 1 where the image holds a signal, see :func:`monai_anomaly.functional.holds_signal`. The mean runs
    over all pixels, those of the background too, as published: an image with little in it counts little.

    Args:
        error: un-reduced error of (prediction, target), default :func:`monai_anomaly.functional.l2_error`, as
            published.
        value_range: smallest and largest possible intensity, default (-1, 1); (0, 1) in the paper, where the squares
            are a quarter of those here.
        threshold: signal, as a fraction of the value range, above which a pixel is no background; published default
            0.01.
        reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``, which gives the map (B, C, *S).

    Raises:
        ValueError: when ``reduction`` is unknown or ``value_range`` no range.

    Reference:
        A. Kascenas, N. Pugeault, A. Q. O'Neil: "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain
        MRI", MIDL 2022, as in the authors' program.
    """

    def __init__(
        self,
        error: Callable[[Tensor, Tensor], Tensor] = l2_error,
        value_range: Sequence[float] = (-1.0, 1.0),
        threshold: float = 0.01,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if len(value_range) != 2 or not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be two numbers, low < high, got {value_range!r}.")
        self.error = error
        self.value_range = (float(value_range[0]), float(value_range[1]))
        self.threshold = threshold

    def extra_repr(self) -> str:
        """What distinguishes two of these losses."""
        return f"error={callable_name(self.error)}, value_range={self.value_range}, threshold={self.threshold}"

    def forward(self, prediction: AutoencoderOutput, target: Tensor) -> Tensor:
        """Loss of what a network returned against the image without noise (B, C, *S)."""
        mask = holds_signal(target, self.value_range, self.threshold)
        return self.reduce(self.error(prediction.reconstruction, target) * mask)
