# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.data import MetaTensor
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


def unwrap(network: Callable[..., Any]) -> Any:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def plain_tensor(image: Tensor) -> Tensor:
    """The data of a MetaTensor without its metadata, whose bookkeeping would slow every operation of a network down."""
    return image.as_tensor() if isinstance(image, MetaTensor) else image
