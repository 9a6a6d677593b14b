# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from monai_anomaly.losses import ReconstructionLoss
from monai_anomaly.networks.nets import UNetRestorer

SMALL: dict[str, Any] = {
    "channels": (8, 8),
    "attention_levels": (False, True),
    "num_res_blocks": 1,
    "num_head_channels": 8,
    "norm_num_groups": 8,
}


def _restorer(dims: int = 2, channels: int = 2) -> UNetRestorer:
    torch.manual_seed(0)
    network = UNetRestorer(dims, channels, **SMALL)
    for parameter in network.parameters():  # its last layers start at zero
        nn.init.normal_(parameter, std=0.25)
    return network


@pytest.mark.parametrize("dims", [2, 3])
def test_is_the_unet_of_a_diffusion_model_at_level_zero_that_sees_the_image_alone(dims: int) -> None:
    network = _restorer(dims).eval()
    image = torch.rand(3, 2, *[16] * dims, generator=torch.Generator().manual_seed(0))
    unet = DiffusionModelUNet(spatial_dims=dims, in_channels=2, out_channels=2, **SMALL).eval()
    unet.load_state_dict(network.unet.state_dict())
    with torch.no_grad():
        result = network(image)
        assert torch.equal(result.reconstruction, unet(image, torch.zeros(3, dtype=torch.int64)))
        assert not torch.allclose(result.reconstruction, unet(image, torch.full((3,), 500)))
        alone = torch.cat([network(one[None]).reconstruction for one in image])
    torch.testing.assert_close(alone, result.reconstruction)
    assert result.log_variance is None and result.reconstruction.shape == image.shape


def test_a_restorer_learns_to_remove_what_was_added() -> None:
    network = _restorer(channels=1)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, 1, 16, 16, generator=generator)
    image = clean.clone()
    image[:, :, 4:9, 4:9] = 1.0
    optimizer, loss, values = torch.optim.Adam(network.parameters(), 0.01), ReconstructionLoss(), []
    for _ in range(25):
        optimizer.zero_grad()
        value = loss(network(image), clean)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
    unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not unused


def test_wrong_groups() -> None:
    with pytest.raises(ValueError, match="multiple of"):
        UNetRestorer(2, 1, **{**SMALL, "norm_num_groups": 3})
