# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from torch import Tensor

from ..inferers.restoration_inferer import RestorationInferer
from ..networks.maps.diffusion_map import DiffusionMap
from ..utils import Keys
from .batch import MovedBatch


class RestoredPair(MovedBatch):
    """Images and what an ensemble of diffusion models makes of them: the ``prepare_batch`` of a network that learns it.

    Args:
        network: the ensemble, which stays as it is.
        inferer: restores the images; with a ``cache_dir`` each image once, and in a run that is started again none
            of those it has restored before.
    """

    keys = (Keys.IMAGE,)

    def __init__(self, network: DiffusionMap, inferer: RestorationInferer) -> None:
        self.network = network
        self.inferer = inferer

    def make(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, *S) in [-1, 1], and the means of their restorations, without gradient."""
        (image,) = tensors
        return image, self.inferer(image, self.network)[Keys.RECONSTRUCTION]
