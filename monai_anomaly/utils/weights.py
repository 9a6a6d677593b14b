# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import torch


class Loadable(Protocol):
    """What weights can be loaded into: a network, or what behaves like one."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Take over all weights."""


def load_weights(network: Loadable, path: str | os.PathLike[str], problem: str, unreadable: str | None = None) -> None:
    """Load a file of weights, and nothing but tensors.

    Args:
        network: what the weights are of.
        path: the file.
        problem: what is said of the file where it is of another network, the remedy included.
        unreadable: what is said of a broken file; None (default): the same.

    Raises:
        ValueError: naming the file and the problem.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds for a broken file
        raise ValueError(f"{path} {unreadable or problem} ({error})") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:  # the latter two: no dictionary, or not of weights
        raise ValueError(f"{path} {problem} ({error})") from error
