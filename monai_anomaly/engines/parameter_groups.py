# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..utils import unwrap


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


def rate_groups(network: nn.Module, parts: Sequence[str], rates: Sequence[float]) -> list[dict[str, Any]]:
    """Parameters for an optimizer in groups of their own learning rates, one for each part of a network.

    Args:
        network: its parameters with a gradient are taken, possibly wrapped for distributed training.
        parts: names of submodules, such as ``"head.last"``.
        rates: learning rate of each part.

    Returns:
        a group of parameters with ``lr`` for each part.

    Raises:
        ValueError: when there is not one rate for each part, a parameter is in no part or in two, or a part has none.
    """
    if len(parts) != len(rates):
        raise ValueError(f"rates must be one for each of {len(parts)} parts, got {list(rates)}")
    groups: list[list[nn.Parameter]] = [[] for _ in parts]
    for name, parameter in unwrap(network).named_parameters():
        if parameter.requires_grad:
            found = [number for number, part in enumerate(parts) if name.startswith(f"{part}.")]
            if len(found) != 1:
                raise ValueError(f"parts must name each parameter once, got {len(found)} for {name}: {list(parts)}")
            groups[found[0]].append(parameter)
    if not all(groups):
        raise ValueError(f"parts must have parameters that learn, got {list(parts)}")
    return [{"params": parameters, "lr": rate} for parameters, rate in zip(groups, rates, strict=True)]
