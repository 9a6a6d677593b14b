# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_anomaly.functional import content_priority, farthest_points, lowest_distinct, place_phases

from .fitted_head import FittedHead

_METRICS = ("cosine", "euclidean")
_SELECTIONS = ("sample", "greedy")
# Places whose vectors are in float32, or compared with one another, at once.
_CHUNK = 64


class PlaceMemory(FittedHead):
    """A memory for each place: the distance to the most similar vector that healthy images have near the same place.

    Medical images are roughly aligned, so what is normal depends on where it is. The distance of a vector at place p is
    the smallest one to the vectors kept at the places within ``window`` cells of p along every axis.

    At most ``size`` different vectors are kept at a place, in half precision. ``finish`` turns each v into its first
    ``projected - 1`` principal components Pv and the length of the rest, ``[Pv, sqrt(|v|^2 - |Pv|^2)]``: lengths stay
    as they are, and no distance becomes larger than the one between the whole vectors. Which vectors are kept follows
    from their content alone (``content_priority``), so neither the order of images nor the size of batches changes it,
    and neighboring places keep different images, to which the window then leads. ``selection="greedy"`` keeps those
    that are farthest apart (streamed: those kept and one batch are the candidates); it depends on order and batch size.

    Near it are SPADE (N. Cohen, Y. Hoshen, 2020: neighbors in the whole image, images chosen first), PaDiM (T. Defard
    et al., ICPR 2021: a Gaussian for each place) and PatchCore (K. Roth et al., CVPR 2022: one bank for all places).

    Args:
        size: vectors K kept at a place. With 256 and 64 numbers each the bank takes 32 MiB on a grid of 32 x 32; while
            fitting, they are held whole.
        window: how many cells away the neighbors of a place may be; 0 for the place alone.
        projected: numbers d kept of a vector, or None for all. One that is not below the length D of a vector does
            nothing.
        metric: "cosine" (1 - similarity, in [0, 2]) or "euclidean".
        selection: "sample" or "greedy".
        seed: of the priorities.

    Shapes:
        ``forward``: features (B, D, *G) to distances (B, 1, *G), with one, two or three axes.

    Raises:
        ValueError: when an argument is outside its range, or features do not have the grid that was fitted.

    Example:
        >>> memory = PlaceMemory(size=8, window=1)
        >>> healthy = torch.rand(4, 16, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> memory.fit_batch(healthy)
        >>> memory.finish()
        >>> memory(healthy).shape, bool(memory(healthy).max() < 1e-6)
        (torch.Size([4, 1, 6, 6]), True)
    """

    working = ("sample", "priority")
    bank: Tensor
    projection: Tensor
    direction: Tensor
    sample: Tensor
    priority: Tensor

    def __init__(
        self,
        size: int = 256,
        window: int = 3,
        projected: int | None = 64,
        metric: str = "cosine",
        selection: str = "sample",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size < 1 or window < 0 or (projected is not None and projected < 2):
            raise ValueError(
                "size must be positive, projected at least 2 and window not negative, "
                f"got {size}, {projected} and {window}."
            )
        if metric not in _METRICS or selection not in _SELECTIONS:
            raise ValueError(
                f"metric must be one of {_METRICS}, selection one of {_SELECTIONS}, got {metric!r} and {selection!r}."
            )
        self.size, self.window, self.projected = size, window, projected
        self.metric, self.selection, self.seed = metric, selection, seed
        self.register_buffer("bank", torch.empty(0, dtype=torch.float16))  # (*G, K, d)
        self.register_buffer("projection", torch.empty(0))  # (d - 1, D), or empty for none
        self.register_buffer("direction", torch.empty(0))  # (D,)
        self.register_buffer("sample", torch.empty(0, dtype=torch.float16))  # (N, K, D)
        self.register_buffer("priority", torch.empty(0, dtype=torch.float64))  # (N, K), infinite for a free slot

    def extra_repr(self) -> str:
        """What distinguishes two of these memories."""
        return f"bank={tuple(self.bank.shape)}, window={self.window}, metric={self.metric!r}"

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        if not 1 <= len(grid) <= 3:
            raise ValueError(f"features must be (B, D, *G) with one to three axes of places, got grid {grid}.")
        device = self.bank.device
        self.direction = torch.randn(channels, generator=torch.Generator().manual_seed(self.seed)).to(device)
        kept = channels
        if self.projected is not None and self.projected < channels:
            kept = self.projected
            self.projection = torch.zeros(kept - 1, channels, device=device)
        self.bank = torch.zeros(*grid, self.size, kept, dtype=torch.float16, device=device)

    def _fit(self, features: Tensor) -> None:
        self._check_grid(features)
        phase = place_phases(self.bank.shape[:-2]).to(features.device)
        priority = content_priority(features.flatten(2), self.direction, phase, length=self.metric == "euclidean")
        vectors = self._scaled(features).flatten(1, -2).transpose(0, 1).half()
        self._keep([self.priority, priority.T], [self.sample, vectors])

    def _merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        for name in ("bank", "projection", "direction"):
            setattr(self, name, states[0][name])
        self._keep([state["priority"] for state in states], [state["sample"] for state in states])

    def _keep(self, priorities: Sequence[Tensor], vectors: Sequence[Tensor]) -> None:
        """Keep K vectors of samples (N, M, D) with their priorities (N, M)."""
        candidates = torch.cat([part for part in vectors if part.numel()], dim=1)
        priority = torch.cat([part for part in priorities if part.numel()], dim=1)
        if self.selection == "greedy":
            parts = zip(candidates.split(_CHUNK), priority.isfinite().split(_CHUNK), strict=True)
            chosen = [_apart(vectors, valid, self.size) for vectors, valid in parts]
            index, free = (torch.cat(part) for part in zip(*chosen, strict=True))
            self.priority = priority.gather(1, index).masked_fill(free, torch.inf)
        else:
            self.priority, index = lowest_distinct(priority, self.size)
        # a free slot repeats the first vector, so that the search need not know which slots are in use
        index = torch.where(self.priority.isfinite(), index, index[:, :1])
        self.sample = candidates.gather(1, index[..., None].expand(-1, -1, candidates.shape[-1]))

    def _finish(self) -> None:
        if self.projection.numel():
            products = [part.float().flatten(0, 1).T @ part.float().flatten(0, 1) for part in self.sample.split(_CHUNK)]
            _, vectors = torch.linalg.eigh(torch.stack(products).double().sum(dim=0))  # ascending
            self.projection.copy_(vectors.flip(1)[:, : len(self.projection)].T)
        bank = self.bank.flatten(0, -3)
        bank[:, : self.sample.shape[1]] = torch.cat(
            [self._reduced(part.float()).half() for part in self.sample.split(_CHUNK)]
        )
        bank[:, self.sample.shape[1] :] = bank[:, :1]

    def _scaled(self, features: Tensor) -> Tensor:
        """Bring features (B, D, *G) to vectors (B, *G, D) between which distances are measured."""
        vectors = features.float().movedim(1, -1)
        return F.normalize(vectors, dim=-1) if self.metric == "cosine" else vectors

    def _reduced(self, vectors: Tensor) -> Tensor:
        """Principal components and the length of the rest (..., d) of vectors (..., D)."""
        if not self.projection.numel():
            return vectors
        components = vectors @ self.projection.T
        rest = (vectors.square().sum(-1, keepdim=True) - components.square().sum(-1, keepdim=True)).clamp_min(0)
        return torch.cat([components, rest.sqrt()], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Distances (B, 1, *G) of features (B, D, *G)."""
        self._check_finished()
        self._check_grid(features)
        # rounded as the vectors of the bank are, so that one of them is at distance zero
        query, bank = self._reduced(self._scaled(features).half().float()).half().float(), self.bank.float()
        if self.metric == "cosine":
            query, bank = F.normalize(query, dim=-1), F.normalize(bank, dim=-1)
        return self._search(query, bank).unsqueeze(1)

    def _search(self, query: Tensor, bank: Tensor) -> Tensor:
        """Smallest distance (B, *G) of each query (B, *G, d) to the bank (*G, K, d) of the places around it.

        Every place's bank is compared with the queries in its window: all places and all steps along the last axis in
        one product, one product for each step along the other axes.
        """
        grid = bank.shape[:-2]
        reach = [min(self.window, cells - 1) for cells in grid]
        around = [pad for cells in reversed(reach) for pad in (cells, cells)]
        padded = F.pad(query.movedim(-1, 1), around)  # (B, d, *G + 2 reach)
        windows = padded.unfold(-1, 2 * reach[-1] + 1, 1)  # the steps along the last axis come last
        windows = windows.movedim(0, -2).movedim(0, -1)  # (*G, B, steps, d), the last of *G without margin
        best: Tensor | None = None
        for shift in itertools.product(*(range(2 * cells + 1) for cells in reach[:-1])):
            part = windows
            for axis, start in enumerate(shift):
                part = part.narrow(axis, start, grid[axis])
            nearest = self._nearest(part.flatten(-3, -2), bank)  # (*G, B * steps)
            nearest = nearest.unflatten(-1, (query.shape[0], 2 * reach[-1] + 1)).movedim(-2, 0)  # (B, *G, steps)
            for step in range(2 * reach[-1] + 1):
                offset = [start - cells for start, cells in zip((*shift, step), reach, strict=True)]
                found = _shifted(nearest[..., step], offset)
                best = found if best is None else torch.minimum(best, found)
        assert best is not None  # a window has at least one place
        return best

    def _nearest(self, query: Tensor, bank: Tensor) -> Tensor:
        """Smallest distances (*G, M) of queries (*G, M, d) to the bank (*G, K, d) of the same place."""
        if self.metric == "cosine":
            return (1 - (query @ bank.transpose(-1, -2)).amax(dim=-1)).clamp_min(0)
        # differences, not products: a vector of the bank has distance zero exactly
        return torch.cdist(query, bank, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=-1)

    def _check_grid(self, features: Tensor) -> None:
        expected = (self.direction.shape[0], *self.bank.shape[:-2])
        if tuple(features.shape[1:]) != expected:
            raise ValueError(f"features must be (B, D, *G) with {expected} after B, got {tuple(features.shape)}.")


def _shifted(values: Tensor, offset: Sequence[int]) -> Tensor:
    """What a place p of values (B, *G) says about the place p + offset; infinite where no p is."""
    pads = [pad for step in reversed(offset) for pad in (step, -step)]
    return F.pad(values, pads, value=torch.inf)


def _apart(vectors: Tensor, valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Index (N, count) of vectors (N, M, d) that are far apart, and where nothing new was left to choose."""
    vectors = vectors.float()
    products = vectors @ vectors.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    distances = (squares[:, :, None] + squares[:, None] - 2 * products).clamp_min_(0)
    rows = torch.arange(len(vectors), device=vectors.device)
    index, gaps = farthest_points(lambda chosen: distances[rows, chosen], valid, min(count, vectors.shape[1]))
    return index, gaps <= 0
