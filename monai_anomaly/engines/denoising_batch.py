# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..utils import Keys
from .batch import moved


def prepare_denoising_batch(
    batchdata: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
    """Input and target of a denoising student and its head: the corrupted image and where the anomaly is (B, 1, *S).

    Args:
        batchdata: batch with ``image``, ``clean`` and ``label``.
        device: where to move it.
        non_blocking: as in ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.

    Returns:
        image and label, no further arguments, and ``clean`` by its name.
    """
    keys = [Keys.IMAGE, Keys.LABEL, Keys.CLEAN]
    image, label, clean = moved(batchdata, keys, device, non_blocking, **kwargs)
    return image, label, (), {"clean": clean}
