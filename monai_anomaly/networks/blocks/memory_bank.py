# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from monai_anomaly.functional import content_priority, farthest_points, lowest_vectors

from .fitted_head import FittedHead

# Vectors of the bank that are compared at once with all queries.
_CHUNK = 1024
# How many random points the published coreset takes its first distances from.
_PUBLISHED_STARTS = 10


class MemoryBank(FittedHead):
    """One memory for all places: the distance to the nearest vector of any place of any healthy image.

    While fitting, at most ``max_candidates`` different vectors are held, chosen by their content alone
    (``content_priority``), so neither the order of images nor the size of batches changes what is fitted. ``finish``
    keeps ``size`` of them that are far apart: greedy k-centers on a random projection, the first center being the
    candidate of the lowest priority.

    Differs from the paper: the candidates are a sample where there are more than ``max_candidates`` vectors.

    Args:
        size: vectors M of the bank.
        max_candidates: vectors held while fitting, at least ``size``.
        projected: length of the vectors between which the coreset measures; 128 in the paper.
        num_neighbors: b of the re-weighting in ``image_score``; 0 or 1 for none.
        compat: None, or "patchcore" for what the published code does: squared distances, no re-weighting, and first
            distances of the coreset that are the mean of those to ten random candidates which are not in it.
        seed: of priorities and projection.

    Shapes:
        ``forward``: features (B, D, *G) to distances (B, 1, *G); (B, D) to (B, 1).

    Raises:
        ValueError: when an argument is outside its range, or features do not have the channels that were fitted.

    Example:
        >>> memory = MemoryBank(size=100)
        >>> healthy = torch.rand(4, 16, 5, 5, generator=torch.Generator().manual_seed(0))
        >>> memory.fit_batch(healthy)
        >>> memory.finish()
        >>> memory(healthy).shape, bool(memory(healthy).max() < 1e-6)
        (torch.Size([4, 1, 5, 5]), True)

    Reference:
        K. Roth, L. Pemula, J. Zepeda, B. Schölkopf, T. Brox, P. Gehler: "Towards Total Recall in Industrial Anomaly
        Detection", CVPR 2022, Algorithm 1, Eqs. 5-7.
    """

    working = ("sample", "priority")
    bank: Tensor
    num_used: Tensor
    direction: Tensor
    sample: Tensor
    priority: Tensor

    def __init__(
        self,
        size: int = 4096,
        max_candidates: int = 32768,
        projected: int = 128,
        num_neighbors: int = 9,
        compat: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= size <= max_candidates:
            raise ValueError(f"size must be in 1 ... max_candidates, got {size} and {max_candidates}.")
        if projected < 1 or num_neighbors < 0:
            raise ValueError(f"projected must be positive, num_neighbors >= 0, got {projected} and {num_neighbors}.")
        if compat not in (None, "patchcore"):
            raise ValueError(f"compat must be None or 'patchcore', got {compat!r}.")
        self.size, self.max_candidates, self.projected = size, max_candidates, projected
        self.num_neighbors, self.compat, self.seed = num_neighbors, compat, seed
        self.register_buffer("bank", torch.empty(0))  # (M, D)
        self.register_buffer("num_used", torch.tensor(0))  # slots of the bank in use; the others repeat the first
        self.register_buffer("direction", torch.empty(0))  # (D,)
        self.register_buffer("sample", torch.empty(0))  # (n, D), ascending by priority
        self.register_buffer("priority", torch.empty(0, dtype=torch.float64))  # (n,)

    def extra_repr(self) -> str:
        """What distinguishes two of these memories."""
        return f"bank={tuple(self.bank.shape)}, num_neighbors={self.num_neighbors}, compat={self.compat!r}"

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        generator, device = torch.Generator().manual_seed(self.seed), self.bank.device
        self.direction = torch.randn(channels, generator=generator).to(device)
        self.bank = torch.zeros(self.size, channels, device=device)

    def _fit(self, features: Tensor) -> None:
        self._check_channels(features)
        places = features.float().reshape(*features.shape[:2], -1)  # (B, D, N)
        priority = content_priority(places, self.direction).flatten()
        held = self.sample.reshape(-1, places.shape[1])
        vectors = [held, places.transpose(1, 2).flatten(0, 1)]
        self.priority, self.sample = lowest_vectors([self.priority, priority], vectors, self.max_candidates)

    def _merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.bank, self.direction = states[0]["bank"], states[0]["direction"]
        priorities, samples = [state["priority"] for state in states], [state["sample"] for state in states]
        self.priority, self.sample = lowest_vectors(priorities, samples, self.max_candidates)

    def _finish(self) -> None:
        count = min(self.size, len(self.sample))
        index, gaps = self._coreset(count)
        self.num_used.fill_(int((gaps > 0).sum()))
        self.bank[:count] = self.sample[index]
        self.bank[int(self.num_used) :] = self.sample[index[0]]

    def _coreset(self, count: int) -> tuple[Tensor, Tensor]:
        """Candidates that are far apart, by their index (count,), and how far each was from those before it."""
        generator = torch.Generator().manual_seed(self.seed)
        vectors = self.sample - self.sample.mean(dim=0)
        if self.projected < vectors.shape[1]:
            projection = torch.randn(vectors.shape[1], self.projected, generator=generator) / self.projected**0.5
            vectors = vectors @ projection.to(vectors.device)
        squares = vectors.square().sum(dim=1)

        def distances_of(index: Tensor) -> Tensor:
            return (squares + squares[index] - 2 * (vectors @ vectors[index[0]])).clamp_min(0)[None]

        start = None
        if self.compat is not None:
            random = torch.randint(len(vectors), (_PUBLISHED_STARTS,), generator=generator).to(vectors.device)
            start = torch.cdist(vectors, vectors[random]).mean(dim=1).square()[None]
        valid = torch.ones(1, len(vectors), dtype=torch.bool, device=vectors.device)
        index, gaps = farthest_points(distances_of, valid, count, start)
        return index[0], gaps[0]

    def forward(self, features: Tensor) -> Tensor:
        """Distances (B, 1, *G) of features (B, D, *G), or (B, 1) of (B, D)."""
        return self._on_grid(self._nearest(features)[0], features)

    def scored(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` and ``image_score`` give, after one search."""
        distances, index = self._nearest(features)
        return self._on_grid(distances, features), self._reweighted(features, distances, index)

    def image_score(self, features: Tensor) -> Tensor:
        """Score of whole images (B, 1): that of the worst place q, re-weighted by how sparse the bank is around it.

        ``(1 - exp|q - m| / sum_k exp|q - m_k|) |q - m|`` (Eq. 7) with m nearest to q and m_k the b vectors of the bank
        nearest to m, m itself among them. It is the largest distance with ``num_neighbors`` 0 or 1, with ``compat``,
        and with a bank of one vector, which says nothing of how sparse it is.
        """
        return self.scored(features)[1]

    def _on_grid(self, distances: Tensor, features: Tensor) -> Tensor:
        distances = distances if self.compat is None else distances.square()
        return distances.reshape(features.shape[0], 1, *features.shape[2:])

    def _reweighted(self, features: Tensor, distances: Tensor, index: Tensor) -> Tensor:
        """Score (B, 1), from the distances (B, N) of all places and what is nearest to them."""
        worst, place = distances.max(dim=1, keepdim=True)  # (B, 1)
        if self.compat is not None:
            return worst.square()
        if self.num_neighbors <= 1:
            return worst
        query = (
            features.float()
            .reshape(*features.shape[:2], -1)
            .gather(2, place[:, None].expand(-1, features.shape[1], -1))[:, :, 0]
        )
        free = torch.arange(self.bank.shape[0], device=self.bank.device) >= self.num_used
        nearest = self.bank[index.gather(1, place)[:, 0]]
        apart = _pairwise(nearest, self.bank).masked_fill(free, torch.inf)
        found, neighbors = apart.topk(min(self.num_neighbors, self.bank.shape[0]), dim=1, largest=False)
        away = (query[:, None] - self.bank[neighbors]).norm(dim=2).masked_fill(found.isinf(), -torch.inf)
        weight = 1 - (worst - away.logsumexp(dim=1, keepdim=True)).exp()
        return worst * torch.where(self.num_used > 1, weight, torch.ones_like(weight))

    def _nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (B, N) of each place to the nearest vector of the bank, and which one (B, N) that is."""
        self._check_finished()
        self._check_channels(features)
        rows = features.float().reshape(*features.shape[:2], -1).transpose(1, 2)  # (B, N, D)
        center = self.bank.mean(dim=0)  # differences of large products would be inexact
        queries, parts = rows - center, (self.bank - center).split(_CHUNK)
        found = [(0.5 * part.square().sum(dim=1) - queries @ part.T).min(dim=2) for part in parts]
        index = torch.stack([result.indices + _CHUNK * number for number, result in enumerate(found)])
        chosen = torch.stack([result.values for result in found]).argmin(dim=0, keepdim=True)
        nearest = index.gather(0, chosen)[0]
        # the distance itself from the difference: a vector of the bank has distance zero exactly
        return (rows - self.bank[nearest]).norm(dim=2), nearest

    def _check_channels(self, features: Tensor) -> None:
        if features.shape[1] != self.bank.shape[1]:
            raise ValueError(f"features must be (B, {self.bank.shape[1]}, *G), got {tuple(features.shape)}.")


def _pairwise(first: Tensor, second: Tensor) -> Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
