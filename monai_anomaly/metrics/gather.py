# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Collect what the ranks of a distributed run hold; without one, everything passes through unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence

import ignite.distributed as idist
import torch
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

__all__ = ["gather_rows", "gather_strings", "reduce_extreme", "reduce_sum"]


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the (N, ...) rows of all ranks, rank 0 first; ranks may hold different N, also none."""
    if idist.get_world_size() <= 1:
        return rows
    return evenly_divisible_all_gather(rows.contiguous(), concat=True)


def gather_strings(strings: Sequence[str]) -> list[str]:
    """Concatenate the strings of all ranks, rank 0 first; any characters, also empty lists."""
    if idist.get_world_size() <= 1:
        return list(strings)
    # MONAI's own gather of strings splits at tabs and makes an empty string of an empty list
    text = torch.frombuffer(bytearray(json.dumps(list(strings)).encode()), dtype=torch.uint8)
    parts = evenly_divisible_all_gather(text, concat=False)
    return [name for part in parts for name in json.loads(bytes(part.tolist()).decode())]


def reduce_sum(values: Tensor) -> Tensor:
    """Add a tensor over all ranks; exact for integers."""
    return _reduce(values, "SUM")


def reduce_extreme(values: Tensor, which: str) -> Tensor:
    """Take the smallest ("MIN") or largest ("MAX") of each element over all ranks."""
    return _reduce(values, which)


def _reduce(values: Tensor, op: str) -> Tensor:
    if idist.get_world_size() <= 1:
        return values.clone()
    return torch.as_tensor(idist.all_reduce(values.clone(), op=op))
