# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ignite.distributed as idist
import torch


def is_first_process() -> bool:
    """Whether this process writes what all processes of a run share, such as TensorBoard's files."""
    return bool(idist.get_rank() == 0)


def device_of_rank() -> torch.device:
    """The GPU of this process, chosen by its rank on this machine, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", idist.get_local_rank())
    torch.cuda.set_device(device)
    return device
