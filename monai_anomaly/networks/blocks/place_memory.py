# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_anomaly.functional import (
    content_priority,
    farthest_points,
    from_nibbles,
    lowest_distinct,
    place_phases,
    to_nibbles,
)
from monai_anomaly.functional.quantization import NORMAL_STEP

from .fitted_head import FittedHead

_METRICS = ("cosine", "euclidean")
_SELECTIONS = ("sample", "greedy")
_BITS = (4, 16)
# Places whose vectors are in float32, or compared with one another, at once: as many as fit into a processor's cache.
_CHUNK = 32


class PlaceMemory(FittedHead):
    """A memory for each place: the distance to the most similar vector that healthy images have near the same place.

    Medical images are roughly aligned, so what is normal depends on where it is. The distance of a vector at place p is
    the smallest one to the vectors kept at the places within ``window`` cells of p along every axis.

    At most ``size`` different vectors are kept at a place. ``finish`` turns each v into its first ``projected``
    principal components Pv, of the differences between vectors of the same place, and the length of the rest,
    ``[Pv, sqrt(|v|^2 - |Pv|^2)]``: lengths stay as they are, and no distance becomes larger than the one between the
    whole vectors. Components are kept in 4 bits each, in even steps around their mean, or in half precision.

    Which vectors are kept follows from their content alone (``content_priority``), so neither the order of images nor
    the size of batches changes it, and neighboring places keep different images, to which the window then leads.
    ``selection="greedy"`` keeps those that are farthest apart (streamed: those kept and one batch are the candidates);
    it depends on order and batch size.

    Near it are SPADE (N. Cohen, Y. Hoshen, 2020: neighbors in the whole image, images chosen first), PaDiM (T. Defard
    et al., ICPR 2021: a Gaussian for each place) and PatchCore (K. Roth et al., CVPR 2022: one bank for all places).

    Args:
        size: vectors K kept at a place. With 576 of 104 components in 4 bits the bank takes 32 megabytes on a grid of
            32 x 32; while fitting, they are held whole.
        window: how many cells away the neighbors of a place may be; 0 for the place alone.
        projected: components m kept of a vector, or None for all. One that is not below the length D of a vector does
            nothing.
        metric: "cosine" (1 - similarity, in [0, 2]) or "euclidean".
        selection: "sample" or "greedy".
        bits: of a component, 4 or 16. A vector of the bank is at distance zero with 16; with 4, at about a hundredth of
            the usual distance between two healthy images.
        seed: of the priorities.

    Shapes:
        ``forward``: features (B, D, *G) to distances (B, 1, *G), with one, two or three axes.

    Raises:
        ValueError: when an argument is outside its range, or features do not have the grid that was fitted.

    Example:
        >>> memory = PlaceMemory(size=8, window=1, bits=16)
        >>> healthy = torch.rand(4, 16, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> memory.fit_batch(healthy)
        >>> memory.finish()
        >>> memory(healthy).shape, bool(memory(healthy).max() < 1e-6)
        (torch.Size([4, 1, 6, 6]), True)
    """

    working = ("sample", "priority")
    bank: Tensor
    rest: Tensor
    num_used: Tensor
    mean: Tensor
    spacing: Tensor
    projection: Tensor
    direction: Tensor
    sample: Tensor
    priority: Tensor

    def __init__(
        self,
        size: int = 576,
        window: int = 3,
        projected: int | None = 104,
        metric: str = "cosine",
        selection: str = "sample",
        bits: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size < 1 or window < 0 or (projected is not None and projected < 1):
            raise ValueError(
                f"size and projected must be positive and window not negative, got {size}, {projected} and {window}."
            )
        if metric not in _METRICS or selection not in _SELECTIONS or bits not in _BITS:
            raise ValueError(
                f"metric must be one of {_METRICS}, selection one of {_SELECTIONS}, bits one of {_BITS}, "
                f"got {metric!r}, {selection!r} and {bits!r}."
            )
        self.size, self.window, self.projected = size, window, projected
        self.metric, self.selection, self.bits, self.seed = metric, selection, bits, seed
        empty = torch.empty(0)
        self.register_buffer("bank", empty.to(torch.uint8 if bits == 4 else torch.float16))  # (*G, K, m or m/2)
        self.register_buffer("rest", empty.half())  # (*G, K)
        self.register_buffer("num_used", torch.tensor(0))  # slots that any place has in use
        self.register_buffer("mean", empty)  # (m,) of the components, and
        self.register_buffer("spacing", empty)  # (m,) of their levels
        self.register_buffer("projection", empty)  # (m, D), or empty for none
        self.register_buffer("direction", empty)  # (D,)
        self.register_buffer("sample", empty.half())  # (N, K, D)
        self.register_buffer("priority", empty.double())  # (N, K), infinite for a free slot
        self._used = size  # what `num_used` says, for forward: a trace cannot ask a tensor

    def extra_repr(self) -> str:
        """What distinguishes two of these memories."""
        kept = f"bank={tuple(self.bank.shape)}, bits={self.bits}"
        return f"{kept}, window={self.window}, metric={self.metric!r}"

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        if not 1 <= len(grid) <= 3:
            raise ValueError(f"features must be (B, D, *G) with one to three axes of places, got grid {grid}.")
        device = self.bank.device
        self.direction = torch.randn(channels, generator=torch.Generator().manual_seed(self.seed)).to(device)
        kept = channels
        if self.projected is not None and self.projected < channels:
            kept = self.projected
            self.projection = torch.zeros(kept, channels, device=device)
        width = kept if self.bits == 16 else (kept + 1) // 2
        self.bank = torch.zeros(*grid, self.size, width, dtype=self.bank.dtype, device=device)
        self.rest = torch.zeros(*grid, self.size, dtype=torch.float16, device=device)
        self.mean, self.spacing = torch.zeros(2, kept, device=device)

    def _fit(self, features: Tensor) -> None:
        self._check_grid(features)
        phase = place_phases(self.rest.shape[:-1]).to(features.device)
        priority = content_priority(features.flatten(2), self.direction, phase, length=self.metric == "euclidean")
        vectors = self._scaled(features).flatten(1, -2).transpose(0, 1).half()
        self._keep([self.priority, priority.T], [self.sample, vectors])

    def _merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        for name in ("bank", "rest", "mean", "spacing", "projection", "direction"):
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
        valid = self.priority.isfinite()
        if self.projection.numel():
            self.projection.copy_(self._components(valid))
        components = [self._projected(part.float()) for part in self.sample.split(_CHUNK)]
        self.mean, deviation = _mean_and_deviation(components, valid.split(_CHUNK))
        self.spacing = NORMAL_STEP * deviation
        bank, rest = self.bank.flatten(0, -3), self.rest.flatten(0, -2)
        count, start = self.sample.shape[1], 0
        for vectors, values in zip(self.sample.split(_CHUNK), components, strict=True):
            places = slice(start, start + len(values))
            bank[places, :count], rest[places, :count] = self._stored(vectors.float(), values)
            start += len(values)
        bank[:, count:], rest[:, count:] = bank[:, :1], rest[:, :1]
        self.num_used.fill_(int(valid.sum(dim=1).max()))
        self._used = int(self.num_used)

    def _components(self, valid: Tensor) -> Tensor:
        """Principal components (m, D) of how vectors of the same place differ."""
        total = torch.zeros(2 * self.projection.shape[-1:], dtype=torch.float64, device=valid.device)
        for vectors, used in zip(self.sample.split(_CHUNK), valid.split(_CHUNK), strict=True):
            weight = used[..., None].float()
            center = (vectors.float() * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
            differences = ((vectors.float() - center) * weight).flatten(0, 1)
            total += (differences.T @ differences).double()
        _, directions = torch.linalg.eigh(total)  # ascending
        return directions.flip(1)[:, : len(self.projection)].T

    def _scaled(self, features: Tensor) -> Tensor:
        """Bring features (B, D, *G) to vectors (B, *G, D) between which distances are measured."""
        vectors = features.float().movedim(1, -1)
        return F.normalize(vectors, dim=-1) if self.metric == "cosine" else vectors

    def _projected(self, vectors: Tensor) -> Tensor:
        """Components (..., m) of vectors (..., D)."""
        return vectors @ self.projection.T if self.projection.numel() else vectors

    def _stored(self, vectors: Tensor, components: Tensor) -> tuple[Tensor, Tensor]:
        """What the bank keeps of vectors (..., D): codes or half precision, and the length of the rest (...)."""
        codes = components.half() if self.bits == 16 else to_nibbles(components, self.mean, self.spacing)
        return codes, _rest(vectors, components).half()

    def _restored(self, bank: Tensor, rest: Tensor) -> Tensor:
        """Vectors (..., m + 1) of what the bank keeps."""
        components = bank.float() if self.bits == 16 else from_nibbles(bank, self.mean, self.spacing)
        return torch.cat([components, rest[..., None].float()], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Distances (B, 1, *G) of features (B, D, *G)."""
        self._check_finished()
        self._check_grid(features)
        vectors = self._scaled(features)
        if self.bits == 16:  # rounded as the vectors of the bank are, so that one of them is at distance zero
            vectors = vectors.half().float()
            query = self._restored(*self._stored(vectors, self._projected(vectors)))
        else:
            components = self._projected(vectors)
            query = torch.cat([components, _rest(vectors, components)[..., None]], dim=-1)
        return self._search(query).unsqueeze(1)

    def _search(self, query: Tensor) -> Tensor:
        """Smallest distance (B, *G) of each query (B, *G, d) to the vectors kept at the places around it.

        The vectors of a place are compared with the queries of all places that it is a neighbor of, some places at
        once, so that products stay in the processor's cache.
        """
        grid, count = self.rest.shape[:-1], query.shape[0]
        reach = [min(self.window, cells - 1) for cells in grid]
        offsets = list(itertools.product(*(range(-cells, cells + 1) for cells in reach)))
        around = [pad for cells in reversed(reach) for pad in (cells, cells)]
        padded = F.pad(query.movedim(-1, 1), around).flatten(2).permute(2, 0, 1).contiguous()  # (places, B, d)
        index = _neighbors(grid, reach, offsets).to(query.device)  # (N, steps)
        bank, rest = self.bank[..., : self._used, :].flatten(0, -3), self.rest[..., : self._used].flatten(0, -2)
        parts = []
        for some, codes, lengths in zip(index.split(_CHUNK), bank.split(_CHUNK), rest.split(_CHUNK), strict=True):
            queries = padded[some].flatten(1, 2)  # (n, steps * B, d)
            parts.append(self._nearest(queries, self._restored(codes, lengths)))
        found = torch.cat(parts).T.unflatten(0, (len(offsets), count)).unflatten(2, grid)  # (steps, B, *G)
        best = torch.full_like(found[0], torch.inf)
        for step, offset in enumerate(offsets):
            best = torch.minimum(best, _shifted(found[step], offset))
        return best

    def _nearest(self, query: Tensor, bank: Tensor) -> Tensor:
        """Smallest distances (n, M) of queries (n, M, d) to the bank (n, K, d) of the same place."""
        if self.metric == "cosine":
            query, bank = F.normalize(query, dim=-1), F.normalize(bank, dim=-1)  # what is rounded has another length
            return (1 - (query @ bank.transpose(-1, -2)).amax(dim=-1)).clamp_min(0)
        # differences, not products: a vector of the bank has distance zero exactly
        return torch.cdist(query, bank, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=-1)

    def _check_grid(self, features: Tensor) -> None:
        expected = (self.direction.shape[0], *self.rest.shape[:-1])
        if tuple(features.shape[1:]) != expected:
            raise ValueError(f"features must be (B, D, *G) with {expected} after B, got {tuple(features.shape)}.")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._used = int(self.num_used) or self.size


def _rest(vectors: Tensor, components: Tensor) -> Tensor:
    """Length (...) of what is left of vectors (..., D) beside their components (..., m)."""
    return (vectors.square().sum(-1) - components.square().sum(-1)).clamp_min(0).sqrt()


def _mean_and_deviation(parts: Sequence[Tensor], used: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (m,) of vectors (n, K, m) where they are used (n, K)."""
    total = torch.stack([part[valid].double().sum(0) for part, valid in zip(parts, used, strict=True)]).sum(0)
    number = sum(int(valid.sum()) for valid in used)
    mean = total / number
    squares = [(part[valid].double() - mean).square().sum(0) for part, valid in zip(parts, used, strict=True)]
    return mean.float(), (torch.stack(squares).sum(0) / number).sqrt().float()


def _neighbors(grid: Sequence[int], reach: Sequence[int], offsets: Sequence[Sequence[int]]) -> Tensor:
    """Index (N, steps) of the places p + offset, for every place p of a grid, in one with a margin of ``reach``."""
    index = torch.zeros(*grid, len(offsets), dtype=torch.long)
    for axis, cells in enumerate(grid):
        shape = [1] * axis + [cells] + [1] * (len(grid) - axis)
        steps = torch.tensor([offset[axis] for offset in offsets])
        width = cells + 2 * reach[axis]
        index = index * width + torch.arange(cells).reshape(shape) + reach[axis] + steps
    return index.flatten(0, -2)


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
