# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..inferers.restoration_inferer import RestorationInferer
from ..networks.blocks.diffusion_map import DiffusionMap
from ..utils import Keys
from .batch import moved


class RestoredPair:
    """Images and what an ensemble of diffusion models makes of them: the ``prepare_batch`` of a network that learns it.

    Args:
        network: the ensemble, which stays as it is.
        inferer: restores the images; with a ``cache_dir`` each image once, and in a run that is started again none
            of those it has restored before.
    """

    def __init__(self, network: DiffusionMap, inferer: RestorationInferer) -> None:
        self.network = network
        self.inferer = inferer

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Images and the means of their restorations, both (B, C, *S), the latter without gradient.

        Args:
            batchdata: batch with ``image`` (B, C, *S) in [-1, 1].
            device: where to move it.
            non_blocking: as in ``Tensor.to``.
            kwargs: further arguments of ``Tensor.to``.
        """
        (image,) = moved(batchdata, [Keys.IMAGE], device, non_blocking, **kwargs)
        return image, self.inferer(image, self.network)[Keys.RECONSTRUCTION]
