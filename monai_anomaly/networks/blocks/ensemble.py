# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...utils import accept_only_whole_weights, accept_weights_of_wrapper, derive_seed
from .outputs import EnsembleOutput


class NetworkEnsemble(nn.Module):
    """Networks of the same kind in one module and one checkpoint, trained one after the other.

    The buffer ``num_active`` says how many members count: while training, the last of them is the one that learns and
    the earlier ones ("seniors") are frozen in evaluation mode; at test time members beyond it are left out, so the
    checkpoint of an unfinished run scores with what it has.

    Args:
        member: makes one untrained member when called without arguments, for instance a network class with its
            arguments bound (``"_mode_": "callable"`` in a bundle).
        num_members: number of members N; 3 in D2UE and DDAD.
        seed: member i starts from weights drawn with a seed made of (seed, i), whatever was drawn before; None draws
            from PyTorch's global generator.

    Raises:
        ValueError: when ``num_members`` is not positive.

    Example:
        >>> from monai_anomaly.networks.blocks import NetworkEnsemble
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> ensemble = NetworkEnsemble(lambda: DenseAutoencoder(spatial_size=32, hidden_channels=8), num_members=3)
        >>> len(ensemble.members)
        3
    """

    def __init__(self, member: Callable[[], nn.Module], num_members: int = 3, seed: int | None = 0) -> None:
        super().__init__()
        if num_members < 1:
            raise ValueError(f"num_members must be positive, got {num_members}.")
        self.members = nn.ModuleList(
            make_member(member, None if seed is None else derive_seed(seed, i)) for i in range(num_members)
        )
        self.num_active: Tensor  # declared here, because TorchScript cannot read a class annotation
        self.register_buffer("num_active", torch.tensor(num_members))
        accept_weights_of_wrapper(self, "network.")  # the name of a network in the map around it
        accept_only_whole_weights(self)

    def activate(self, index: int) -> None:
        """Make member ``index`` (from 0) the one that learns, and those before it seniors.

        Raises:
            ValueError: when there is no such member.
        """
        if not 0 <= index < len(self.members):
            raise ValueError(f"index must be in [0, {len(self.members)}), got {index}.")
        self.num_active.fill_(index + 1)
        self.train(self.training)

    def train(self, mode: bool = True) -> NetworkEnsemble:
        """Set training mode; seniors stay in evaluation mode, so their batch statistics do not move."""
        super().train(mode)
        for senior in self.members[: int(self.num_active) - 1]:
            senior.eval()
        return self

    @torch.no_grad()
    def features_of_seniors(self, image: Tensor) -> Tensor | None:
        """Features of the frozen members, (J, B, ...); None while the first member learns."""
        seniors = self.members[: int(self.num_active) - 1]
        return torch.stack([senior(image).features for senior in seniors]) if len(seniors) else None

    @torch.jit.unused
    def forward(self, image: Tensor, senior_features: Tensor | None = None) -> EnsembleOutput:
        """Run the member that learns.

        Args:
            image: (B, C, *S).
            senior_features: features of the seniors for these images (J, B, ...), if they are known already; they are
                computed otherwise.
        """
        if senior_features is None:
            senior_features = self.features_of_seniors(image)
        return EnsembleOutput(self.members[int(self.num_active) - 1](image), senior_features)


def make_member(member: Callable[[], nn.Module], seed: int | None) -> nn.Module:
    """Make a network whose weights are drawn with a seed, whatever was drawn before; None: with what was."""
    if seed is None:
        network = member()
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = member()
    accept_only_whole_weights(network)
    return network
