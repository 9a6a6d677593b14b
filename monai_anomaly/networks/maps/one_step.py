# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from torch import Tensor, nn

from ...utils import accept_only_whole_weights
from .diffusion_map import DiffusionSampler


class OneStepRestorer(nn.Module):
    """Restores images by one evaluation of a denoiser, with gradient: what is trained to do the work of an ensemble.

    Args:
        network: the denoiser, called as in :class:`DiffusionSampler`.
        sampler: how it is asked, in a single step; with the spacing ``"trailing"`` it begins with noise alone.

    Raises:
        ValueError: when the sampler has more than one step.
    """

    def __init__(self, network: nn.Module, sampler: DiffusionSampler) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        if len(sampler.times) != 1:
            raise ValueError(f"the sampler must have num_steps 1, got {len(sampler.times)} steps")
        self.network = network
        self.sampler = sampler

    def forward(self, image: Tensor) -> Tensor:
        """Restoration (B, C, *S) of images (B, C, *S), both in [-1, 1]; the mean where the sampler makes several."""
        restorations: Tensor = self.sampler(self.network, image)
        return restorations.mean(0)
