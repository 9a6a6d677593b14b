# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from monai.networks.utils import eval_mode
from torch import Tensor

from ..networks.maps.discrepancy_map import REFINED_SCORES, DiscrepancyMap
from ..utils import Keys
from .batch import MovedBatch


class DiscrepancyPair(MovedBatch):
    """Input and target of a refiner: maps of disagreement about a corrupted image, and where it was corrupted.

    The ``prepare_batch`` of its training. The networks that disagree stay as they are: in evaluation mode, without
    gradient.

    Args:
        network: the map whose refiner is trained; its score says what the refiner sees.

    Raises:
        ValueError: when the score has no refiner.

    Reference:
        see :class:`monai_anomaly.networks.maps.DiscrepancyMap`.
    """

    keys = (Keys.IMAGE, Keys.LABEL)

    def __init__(self, network: DiscrepancyMap) -> None:
        if not network.refined:
            raise ValueError(f"a refiner is trained for a score among {REFINED_SCORES}, got {network.score!r}")
        self.network = network

    def make(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, 1 or 2, *S) of images (B, C, *S), corrupted or not, and their label (B, 1, *S)."""
        image, label = tensors
        with eval_mode(self.network.network):  # which switches gradients off too
            maps, _ = self.network.compare(image)
        return maps, label
