# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def holds_signal(images: Tensor, value_range: Sequence[float] = (0.0, 1.0), threshold: float = 0.01) -> Tensor:
    """Mark where images hold a signal: ``sum_c (x_c - low) > threshold (high - low)``, (B, 1, *S), bool.

    Args:
        images: (B, C, *S).
        value_range: smallest and largest possible intensity, default (0, 1).
        threshold: as a fraction of the value range; default 0.01, as in the authors' program of the denoising
            autoencoder (Kascenas et al., MIDL 2022).
    """
    low, high = value_range
    return torch.gt((images - low).sum(1, keepdim=True), threshold * (high - low))
