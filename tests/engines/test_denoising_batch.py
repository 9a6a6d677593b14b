# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_anomaly.engines import prepare_denoising_batch


def test_image_label_and_what_the_image_was_before() -> None:
    draw = torch.Generator().manual_seed(0)
    image, clean, label = (torch.rand(2, 1, 4, 4, generator=draw) for _ in range(3))
    batch = {"image": MetaTensor(image), "clean": clean, "label": MetaTensor(label), "index": torch.arange(2)}
    inputs, target, args, kwargs = prepare_denoising_batch(batch, "cpu", dtype=torch.float64)
    assert type(inputs) is torch.Tensor and inputs.dtype == torch.float64
    assert torch.equal(inputs.float(), image) and torch.equal(target.float(), label)
    assert args == () and list(kwargs) == ["clean"] and torch.equal(kwargs["clean"].float(), clean)
    with pytest.raises(KeyError):
        prepare_denoising_batch({"image": image, "label": label})
