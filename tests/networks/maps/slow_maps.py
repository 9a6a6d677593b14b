# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The maps of D2UE Table 2 for one image and one learner at a time: the slow formulas that the fast ones must equal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_anomaly.networks.blocks import NetworkEnsemble
from monai_anomaly.networks.nets import DenseAutoencoder

KINDS: dict[str, dict[str, Any]] = {"ae": {}, "memae": {"memory_slots": 25}, "aeu": {"predict_variance": True}}
SCORES = ("ens", "unc", "dsu")
SIZES: dict[int, tuple[int, ...]] = {2: (16, 32), 3: (16, 16, 32)}


def make_ensemble(kind: str = "ae", spatial_dims: int = 2, channels: int = 1, num_members: int = 3) -> NetworkEnsemble:
    """A small ensemble whose batch statistics and weights are no longer those of a fresh one, in evaluation mode."""
    arguments: dict[str, Any] = KINDS[kind]
    member = partial(DenseAutoencoder, spatial_dims, channels, SIZES[spatial_dims], (4, 4, 6, 6), 8, 4, **arguments)
    ensemble = NetworkEnsemble(member, num_members, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in ensemble.state_dict().values():
            if value.is_floating_point():
                value.add_(0.3 * torch.rand(value.shape, generator=generator))
    return ensemble.eval()


def make_images(count: int = 4, spatial_dims: int = 2, channels: int = 1) -> Tensor:
    """Images that differ in level and contrast."""
    generator = torch.Generator().manual_seed(11)
    scale = torch.linspace(0.2, 1, count).reshape(-1, *[1] * (spatial_dims + 1))
    return scale * torch.randn(count, channels, *SIZES[spatial_dims], generator=generator)


def slow_gradient(learner: nn.Module, image: Tensor) -> Tensor:
    """The gradient of one image's mean error with respect to that image, by autograd on a batch of one."""
    x = image[None].clone().requires_grad_(True)
    output = learner(x)
    if output.log_variance is None:
        loss = (output.reconstruction - x).abs().mean()
    else:
        loss = ((x - output.reconstruction) ** 2 / output.log_variance.exp()).mean()
    loss.backward()
    assert x.grad is not None
    return x.grad[0]


def _sample_deviation(values: Sequence[Tensor]) -> Tensor:
    """Standard deviation with K - 1 in the denominator."""
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def slow_map(learners: Sequence[nn.Module], image: Tensor, score: str) -> Tensor:
    """The map (*S) of one image (C, *S), in double precision."""
    image = image.double()
    learners = [learner.double() for learner in learners]
    outputs = [learner(image[None]) for learner in learners]
    means = [o.reconstruction[0].detach() for o in outputs]
    variances = [o.log_variance[0].detach().exp() for o in outputs if o.log_variance is not None]
    normalizer = sum(variances) / len(variances) if variances else torch.ones(())
    if score == "ens":
        result = (image - sum(means) / len(means)) ** 2 / normalizer
    elif score == "unc":
        result = _sample_deviation(means) / normalizer**0.5
    else:
        products = [
            (m - image).abs() * slow_gradient(learner, image) for m, learner in zip(means, learners, strict=True)
        ]
        result = _sample_deviation([product / normalizer**0.5 for product in products])
    return result.mean(0)
