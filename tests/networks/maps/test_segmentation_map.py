# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_anomaly.functional.errors import enlarged
from monai_anomaly.networks.blocks import DenoisingOutput
from monai_anomaly.networks.maps import segmentation_map


def output(trained: bool) -> DenoisingOutput:
    draw = torch.Generator().manual_seed(0)
    sizes = [(2, 3, 4, 6), (2, 2, 2, 3)]
    made, wanted = ([torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes] for _ in range(2))
    logits = 3 * torch.randn(2, 1, 4, 6, generator=draw, dtype=torch.float64)
    return DenoisingOutput(made, wanted, logits, torch.tensor(trained))


def test_what_the_head_finds_is_enlarged() -> None:
    given = output(True)
    assert given.logits is not None
    expected = enlarged(1 / (1 + (-given.logits).exp()), [8, 12])
    torch.testing.assert_close(segmentation_map(given, [8, 12]), expected)


def test_before_the_head_is_trained_the_distances_are_multiplied() -> None:
    given = output(False)
    expected: Tensor | float = 1.0
    for a, b in zip(given.prediction, given.target, strict=True):
        distance = np.empty((2, 1, *a.shape[2:]))
        for n, y, x in np.ndindex(2, *a.shape[2:]):
            u, v = a[n, :, y, x].numpy(), b[n, :, y, x].numpy()
            distance[n, 0, y, x] = 1 - sum(u * v) / math.sqrt(sum(u * u) * sum(v * v))
        expected = expected * enlarged(torch.tensor(distance), [8, 12])
    torch.testing.assert_close(segmentation_map(given, [8, 12]), expected)


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        segmentation_map(DenoisingOutput([], []), [8, 8])
