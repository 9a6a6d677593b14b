# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.blocks.outputs import AutoencoderOutput
from ._reduced import ReducedLoss


class AddressEntropyLoss(ReducedLoss):
    """Entropy of the memory addresses, ``-sum_m a_m log a_m``, which makes them sparse (MemAE, Eq. 8).

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which gives one value per image (B,).

    Raises:
        ValueError: when ``reduction`` is unknown, or when called on a network without a memory.

    Reference:
        Gong et al., ICCV 2019.
    """

    def forward(self, prediction: AutoencoderOutput, target: Tensor) -> Tensor:
        """Entropy of what an autoencoder with a memory returned; the target is not used."""
        if prediction.address is None:
            raise ValueError("AddressEntropyLoss needs a memory address: build the network with memory_slots > 0.")
        # the constant keeps the logarithm finite for slots that shrinkage has emptied
        return self.reduce(-(prediction.address * torch.log(prediction.address + 1e-12)).sum(1))
