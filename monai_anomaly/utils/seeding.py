# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np


def derive_seed(*parts: int) -> int:
    """One 32-bit seed from several numbers, such as (run, member) or (run, epoch, index).

    Sums would repeat: run 0, member 1 would start where run 1, member 0 does, and seeds would not be independent draws.

    Args:
        parts: numbers >= 0.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
