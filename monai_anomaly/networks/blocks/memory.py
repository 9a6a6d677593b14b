# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBlock(nn.Module):
    """A learned memory of normal codes: a code is replaced by a sparse convex mix of the slots nearest to it.

    Addresses are ``a = softmax(z W^T)``, thinned by hard shrinkage ``a <- relu(a - t) a / (|a - t| + eps)`` (Eq. 7) and
    normalized to sum 1 (Eq. 3-4). Differs from the paper, as its authors' code does: the similarity is the plain dot
    product, not the cosine.

    Args:
        num_slots: number of slots M; 2000 in the paper for videos, 25 in the 64 x 64 benchmarks.
        channels: length Z of a code.
        shrink_threshold: t, in [0, 1); the paper advises 1/M to 3/M, the 64 x 64 benchmarks use 0.0025. Below 1/M no
            code can lose all its slots; above, one that does becomes zero.

    Raises:
        ValueError: when an argument is outside its range.

    Reference:
        D. Gong, L. Liu, V. Le, B. Saha, M. Mansour, S. Venkatesh, A. van den Hengel: "Memorizing Normality to Detect
        Anomaly", ICCV 2019.
    """

    def __init__(self, num_slots: int, channels: int, shrink_threshold: float = 0.0025) -> None:
        super().__init__()
        if num_slots < 1 or channels < 1:
            raise ValueError(f"num_slots and channels must be positive, got {num_slots} and {channels}.")
        if not 0 <= shrink_threshold < 1:
            raise ValueError(f"shrink_threshold must be in [0, 1), got {shrink_threshold}.")
        self.shrink_threshold = shrink_threshold
        self.slots = nn.Parameter(torch.empty(num_slots, channels))
        nn.init.uniform_(self.slots, -(channels**-0.5), channels**-0.5)

    def extra_repr(self) -> str:
        """What distinguishes two of these blocks."""
        return f"slots={tuple(self.slots.shape)}, shrink_threshold={self.shrink_threshold}"

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Look a code up.

        Args:
            code: (B, Z).

        Returns:
            The mix of slots (B, Z) and the address (B, M).
        """
        address = torch.softmax(code @ self.slots.T, dim=1)
        if self.shrink_threshold > 0:
            excess = address - self.shrink_threshold
            address = F.relu(excess) * address / (excess.abs() + 1e-12)
            address = F.normalize(address, p=1.0, dim=1)
        return address @ self.slots, address
