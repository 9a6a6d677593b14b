# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import torch
from torch import nn


def load_weights(network: nn.Module, path: str | os.PathLike[str], problem: str) -> None:
    """Load a file of weights, and nothing but tensors.

    Args:
        network: what the weights are of.
        path: the file.
        problem: what is said of the file where it is broken or of another network, the remedy included.

    Raises:
        ValueError: naming the file and the problem.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # PyTorch raises many kinds for a broken file
        raise ValueError(f"{path} {problem} ({error})") from error
