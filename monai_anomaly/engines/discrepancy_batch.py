# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.networks.utils import eval_mode
from torch import Tensor

from ..networks.blocks.discrepancy_map import REFINED_SCORES, DiscrepancyMap
from ..utils import Keys
from .batch import moved


class DiscrepancyPair:
    """Input and target of a refiner: maps of disagreement about a corrupted image, and where it was corrupted.

    The ``prepare_batch`` of its training. The networks that disagree stay as they are: in evaluation mode, without
    gradient.

    Args:
        network: the map whose refiner is trained; its score says what the refiner sees.

    Raises:
        ValueError: when the score has no refiner.

    Reference:
        see :class:`monai_anomaly.networks.blocks.DiscrepancyMap`.
    """

    def __init__(self, network: DiscrepancyMap) -> None:
        if not network.refined:
            raise ValueError(f"a refiner is trained for a score among {REFINED_SCORES}, got {network.score!r}")
        self.network = network

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Maps (B, 1 or 2, *S) and label (B, 1, *S).

        Args:
            batchdata: batch with ``image`` (B, C, *S), corrupted or not, and ``label`` (B, 1, *S).
            device: where to move it.
            non_blocking: as in ``Tensor.to``.
            kwargs: further arguments of ``Tensor.to``.
        """
        image, label = moved(batchdata, [Keys.IMAGE, Keys.LABEL], device, non_blocking, **kwargs)
        with eval_mode(self.network.network):  # which switches gradients off too
            maps, _ = self.network.compare(image)
        return maps, label
