# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from monai_anomaly.functional import content_priority, lowest_vectors

from .fitted_head import FittedHead

_RULES = ("scott", "silverman")


class KernelDensity(FittedHead):
    """Minus the logarithm of a density of Gaussian kernels on the embeddings of healthy images.

    ``-log(1/n sum_i N(x; x_i, h^2 I))``. At most ``size`` different embeddings are kept, chosen by their content alone
    (``content_priority``), so neither the order of images nor the size of batches changes what is fitted.

    Args:
        bandwidth: h, in units of the features; or "scott", n^(-1 / (D + 4)), or "silverman", (n (D + 2) / 4)^(-1 / (D +
            4)), as in scikit-learn: both are for features of variance one.
        size: embeddings kept.
        seed: of the priorities.

    Shapes:
        ``forward``: embeddings (B, D) to (B, 1), larger where healthy images are rarer; not a distance, so that it may
        be negative.

    Raises:
        ValueError: when an argument is outside its range, or embeddings do not have the length that was fitted.

    Example:
        >>> density = KernelDensity(bandwidth=0.5)
        >>> density.fit_batch(torch.zeros(1, 2))
        >>> density.finish()
        >>> round(density(torch.zeros(1, 2)).item(), 4)  # log(2 pi 0.5^2)
        0.4516

    Reference:
        E. Parzen: "On Estimation of a Probability Density Function and Mode", Annals of Mathematical Statistics 33,
        1962; on learned embeddings as in K. Sohn, C.-L. Li, J. Yoon, M. Jin, T. Pfister: "Learning and Evaluating
        Representations for Deep One-class Classification", ICLR 2021.
    """

    working = ("priority",)
    bank: Tensor
    num_used: Tensor
    width: Tensor
    direction: Tensor
    priority: Tensor

    def __init__(self, bandwidth: float | str = "scott", size: int = 4096, seed: int = 0) -> None:
        super().__init__()
        if bandwidth not in _RULES and not (isinstance(bandwidth, int | float) and bandwidth > 0):
            raise ValueError(f"bandwidth must be positive or one of {_RULES}, got {bandwidth!r}.")
        if size < 1:
            raise ValueError(f"size must be positive, got {size}.")
        self.bandwidth, self.size, self.seed = bandwidth, size, seed
        self.register_buffer("bank", torch.empty(0))  # (M, D)
        self.register_buffer("num_used", torch.tensor(0))  # rows of the bank in use, the first ones
        self.register_buffer("width", torch.tensor(1.0))
        self.register_buffer("direction", torch.empty(0))  # (D,)
        self.register_buffer("priority", torch.empty(0, dtype=torch.float64))  # (n,)

    def extra_repr(self) -> str:
        """What distinguishes two of these densities."""
        return f"bank={tuple(self.bank.shape)}, bandwidth={self.bandwidth!r}"

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        if grid:
            raise ValueError(
                f"KernelDensity is for embeddings (B, D) of whole images, got a grid {grid}: pool it first."
            )
        generator, device = torch.Generator().manual_seed(self.seed), self.bank.device
        self.direction = torch.randn(channels, generator=generator).to(device)
        self.bank = torch.zeros(self.size, channels, device=device)

    def _fit(self, features: Tensor) -> None:
        self._check_shape(features)
        priority = content_priority(features[..., None], self.direction)[:, 0]
        self._keep([self.priority, priority], [self.bank[: len(self.priority)], features.float()])

    def _merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.bank, self.direction = states[0]["bank"], states[0]["direction"]
        priorities = [state["priority"] for state in states]
        self._keep(priorities, [state["bank"][: len(state["priority"])] for state in states])

    def _keep(self, priorities: Sequence[Tensor], vectors: Sequence[Tensor]) -> None:
        self.priority, kept = lowest_vectors(priorities, vectors, self.size)
        self.bank[: len(kept)] = kept
        self.num_used.fill_(len(kept))

    def _finish(self) -> None:
        number, length = int(self.num_used), self.bank.shape[1]
        if isinstance(self.bandwidth, str):
            base = number if self.bandwidth == "scott" else number * (length + 2) / 4
            self.width.fill_(base ** (-1 / (length + 4)))
        else:
            self.width.fill_(self.bandwidth)

    def forward(self, features: Tensor) -> Tensor:
        """Minus the logarithm of the density, (B, 1), of embeddings (B, D)."""
        self._check_finished()
        self._check_shape(features)
        distances = torch.cdist(features.float(), self.bank, compute_mode="donot_use_mm_for_euclid_dist")
        free = torch.arange(self.bank.shape[0], device=self.bank.device) >= self.num_used
        exponents = (-0.5 * (distances / self.width).square()).masked_fill(free, -torch.inf)
        scale = self.num_used.log() + self.bank.shape[1] * (0.5 * math.log(2 * math.pi) + self.width.log())
        return scale - exponents.logsumexp(dim=1, keepdim=True)

    def _check_shape(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.bank.shape[1]:
            raise ValueError(f"embeddings must be (B, {self.bank.shape[1]}), got {tuple(features.shape)}.")
