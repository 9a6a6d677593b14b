# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from random_denoiser import random_denoiser

from monai_anomaly.networks.maps import DiffusionSampler, OneStepRestorer

ONE_STEP = {"num_steps": 1, "spacing": "trailing", "eta": 0.0}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
def test_it_gives_what_the_sampler_does_and_can_be_trained(dims: int, prediction: str) -> None:
    torch.manual_seed(0)
    network, image = random_denoiser(dims).train(), torch.rand(2, 2, *[8] * dims) * 1.6 - 0.8
    sampler = DiffusionSampler(prediction=prediction, **ONE_STEP)
    restored = OneStepRestorer(network, sampler)(image)
    assert torch.equal(restored, sampler(network, image)[0])
    (restored - image).abs().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_its_weights_are_those_of_the_network_alone() -> None:
    network = random_denoiser()
    state = OneStepRestorer(network, DiffusionSampler(**ONE_STEP)).state_dict()
    assert [name.removeprefix("network.") for name in state] == list(network.state_dict())


def test_several_restorations_are_averaged() -> None:
    torch.manual_seed(0)
    network, image = random_denoiser().eval(), torch.rand(2, 2, 8, 8) * 1.6 - 0.8
    sampler = DiffusionSampler(num_samples=3, prediction="velocity", **ONE_STEP)
    torch.testing.assert_close(OneStepRestorer(network, sampler)(image), sampler(network, image).mean(0))


def test_more_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps 1, got 2 steps"):
        OneStepRestorer(random_denoiser(), DiffusionSampler(num_steps=2))
