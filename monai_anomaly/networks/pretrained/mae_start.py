# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TypeVar

from torch import nn

from ...utils import load_weights

logger = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)


def start_from(network: Network, path: str | os.PathLike[str] | None) -> Network:
    """Give a network the weights of a pre-training.

    Args:
        network: a :class:`MaskedAutoencoder`.
        path: ``model.pt`` of the bundle ``mae_pretrain``, or what the converter of published weights wrote. None: the
            network keeps its random weights, which is said in the log.

    Returns:
        The network itself.

    Raises:
        ValueError: naming file and remedy, when it is missing, broken or of another network.
    """
    if path is None:
        logger.warning("no pre-trained weights: the network starts from random ones; give --start_weights FILE")
        return network
    if not Path(path).is_file():
        raise ValueError(f"pre-trained weights {path} do not exist: train the bundle mae_pretrain, give its model.pt")
    problem = (
        "does not fit the network: give the settings of the pre-training (patch_size, hidden_size, ...); published "
        "weights must be converted first"
    )
    load_weights(network, path, problem)
    return network
