# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ignite.distributed as idist
import torch


def device_of_rank() -> torch.device:
    """The GPU of this process, chosen by its rank on this machine, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", idist.get_local_rank())
    torch.cuda.set_device(device)
    return device
