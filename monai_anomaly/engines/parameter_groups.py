# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(network: nn.Module, weight_decay: float = 0.05) -> list[dict[str, Any]]:
    """Parameters for an optimizer in two groups: weights that decay, and biases and other vectors that do not.

    Args:
        network: its parameters with a gradient are taken.
        weight_decay: of the first group; default 0.05, as in MAE and AMAE.

    Returns:
        Groups of parameters with ``weight_decay``, without those that would be empty.

    Reference:
        K. He et al.: "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, Appendix A.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
