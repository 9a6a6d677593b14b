# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ignite.distributed as idist
import torch
import torch.distributed


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


def end_processes() -> None:
    """Wait for the processes of a run and take the process group down: the last thing that each of them does.

    Without the wait, gloo's worker thread may give back the tensors of the last collective when Python is shutting down
    already, and abort a process that has done its work ("terminate called without an active exception").
    """
    idist.barrier()
    torch.distributed.destroy_process_group()
