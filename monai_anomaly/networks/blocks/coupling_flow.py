# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.utils import optional_import
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class CouplingFlow(nn.Module):
    """Invertible map of vectors, under a condition, to a standard normal distribution: affine couplings of FrEIA.

    Each of its blocks is an ``AllInOneBlock`` of the library: half of the channels x_1 and the condition c tell, by
    ``Linear(d, 2d) - ReLU - Linear(2d, .)``, how the other half is scaled and moved,
    ``x_2 exp(clamp tanh(s)) + t``; then every channel is scaled by a positive number and moved, and all are put into
    another order. The orders are drawn once from the seed. They are part of the weights: loading these gives the same
    map, whatever the seed.

    Differs from the library: an order is kept as numbers, not as two matrices of zeros and ones, which for 1024
    channels would be more than the subnetworks; the values are the same.

    Args:
        channels: C of a vector, at least 2.
        condition: length of the condition; 128 in CFLOW.
        blocks: number of blocks; default 8, as in CFLOW.
        clamp: bound of the logarithm of a scale, positive; default 1.9, as in CFLOW.
        seed: of the orders.
        recompute: whether a training keeps what goes into each block alone and makes the rest anew for the gradient:
            the same numbers in less memory and more time. Default False.

    Raises:
        ValueError: when FrEIA is not installed, or an argument is outside its range.

    Reference:
        D. Gudovskiy, S. Ishizaka, K. Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
        Conditional Normalizing Flows", WACV 2022, Section 4.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.blocks import CouplingFlow
        >>> flow = CouplingFlow(6, condition=4, blocks=2)
        >>> vectors, condition = torch.rand(5, 6), torch.rand(5, 4)
        >>> latent, log_det = flow(vectors, condition)
        >>> log_det.shape, torch.allclose(flow.inverse(latent, condition), vectors, atol=1e-5)
        (torch.Size([5]), True)
    """

    def __init__(
        self,
        channels: int,
        condition: int = 128,
        blocks: int = 8,
        clamp: float = 1.9,
        seed: int = 0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if channels < 2 or condition < 1 or blocks < 1 or clamp <= 0:
            raise ValueError(
                "channels must be at least 2, condition and blocks at least 1, clamp above 0, got "
                f"{channels}, {condition}, {blocks}, {clamp}"
            )
        self.recompute = recompute
        self.seed = seed
        draw = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(channels, generator=draw) for _ in range(blocks)]
        self.blocks = nn.ModuleList(_block(channels, condition, clamp, order) for order in orders)

    def extra_repr(self) -> str:
        """What distinguishes two of these flows."""
        return f"clamp={self.blocks[0].clamp}, seed={self.seed}"

    def forward(self, vectors: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors, and how much the map enlarges volumes there.

        Args:
            vectors: (N, C).
            condition: (N, condition).

        Returns:
            latent vectors (N, C) and logarithms of the Jacobian's absolute determinant (N,).
        """
        log_det = vectors.new_zeros(vectors.shape[0])
        for block in self.blocks:
            if self.recompute and self.training and torch.is_grad_enabled():
                vectors, change = checkpoint(_applied, block, vectors, condition, use_reentrant=False)
            else:
                vectors, change = _applied(block, vectors, condition)
            log_det = log_det + change
        return vectors, log_det

    def inverse(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Vectors (N, C) of which :meth:`forward` makes these latent ones under that condition."""
        for block in reversed(self.blocks):
            latent, _ = _applied(block, latent, condition, rev=True)
        return latent


def _applied(block: nn.Module, vectors: Tensor, condition: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
    (vectors,), change = block((vectors,), c=[condition], rev=rev)
    return vectors, change


def _block(channels: int, condition: int, clamp: float, order: Tensor) -> nn.Module:
    """A block of the library that puts the channels into the given order."""
    block_type, installed = optional_import("FrEIA.modules", name="AllInOneBlock")
    if not installed:
        raise ValueError("normalizing flows need the package FrEIA: pip install monai-anomaly[flows]")
    block: Any = block_type(
        [(channels,)],
        dims_c=[(condition,)],
        subnet_constructor=_subnet,
        affine_clamping=clamp,
        global_affine_type="SOFTPLUS",
        permute_soft=False,
    )
    del block.w_perm, block.w_perm_inv  # matrices, of an order from NumPy's global random state
    block.register_buffer("w_perm", order)
    block.register_buffer("w_perm_inv", order.argsort())
    block.permute_function = _ordered
    return block


def _ordered(vectors: Tensor, order: Tensor) -> Tensor:
    return vectors.index_select(1, order)


def _subnet(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Linear(before, 2 * before), nn.ReLU(), nn.Linear(2 * before, after))
