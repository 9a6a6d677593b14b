# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.curves import sort_values
from ..functional.score_bins import check_bits, score_bins
from ..utils import one_spelling
from .gather import gather_rows, gather_strings
from .score_histogram import CHUNK

__all__ = ["PatientHistogram", "patient_rows", "quantile_tables"]

_TABLE_CELLS = 2**22


def num_groups(num_patients: int) -> int:
    """Number of bins of a table per patient: 1024, less where there are thousands of patients."""
    return max(64, min(1024, _TABLE_CELLS // max(num_patients, 1)))


def patient_rows(names: Sequence[str]) -> Tensor:
    """Number patients in the order of their names: (N,) int64."""
    names = one_spelling(names)
    position = {name: row for row, name in enumerate(sorted(set(names)))}
    return torch.tensor([position[name] for name in names], dtype=torch.int64)


def quantile_tables(
    negative: Tensor, positive: Tensor, weights: Tensor, negative_rows: Tensor, positive_rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Count pixels per patient and bin; half the bins are quantiles of the positives, half of the negatives.

    Args:
        negative: (N,) scores of normal pixels.
        positive: (P,) scores of abnormal pixels.
        weights: (P,) int64 region weights of the abnormal pixels.
        negative_rows: (N,) patient of each normal pixel.
        positive_rows: (P,) patient of each abnormal pixel.

    Returns:
        positives, negatives and region weights, each (patients, bins) int64, the largest scores first.
    """
    patients = 1 + max((int(rows.max()) for rows in (negative_rows, positive_rows) if rows.numel() > 0), default=-1)
    half = num_groups(patients) // 2
    edges = torch.unique(torch.cat([_quantiles(negative, half), _quantiles(positive, half)]))
    size = edges.numel() + 1
    cells = [
        rows * size + (size - 1 - torch.bucketize(x, edges, right=True))
        for x, rows in ((positive, positive_rows), (negative, negative_rows))
    ]
    table = torch.zeros(3, patients * size, dtype=torch.int64)
    table[0] += torch.bincount(cells[0], minlength=patients * size)
    table[1] += torch.bincount(cells[1], minlength=patients * size)
    table[2].index_add_(0, cells[0], weights)
    positives, negatives, summed = table.view(3, patients, size)
    return positives, negatives, summed


def _quantiles(scores: Tensor, count: int) -> Tensor:
    if scores.numel() == 0:
        return scores
    return sort_values(scores)[torch.linspace(0, scores.numel() - 1, count).to(torch.int64)]


class PatientHistogram:
    """Counts per patient and bin, of which only the occupied ones are stored.

    The memory does not grow with the pixels of a patient: at most ``2 ** bits * 32`` bytes each, and in practice a
    fiftieth of that, since the values of a map span some ten powers of two.

    Args:
        bits: see :class:`ScoreHistogram`.
    """

    def __init__(self, bits: int = 14) -> None:
        check_bits(bits)
        self.bits = bits
        self.names: dict[str, int] = {}
        self._keys = torch.zeros(0, dtype=torch.int64)
        self._values = torch.zeros(3, 0, dtype=torch.int64)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._pending_size = 0

    def update(self, patient: str, negative: Tensor, positive: Tensor, weights: Tensor) -> None:
        """Add pixels of one patient; arguments as in :meth:`ScoreHistogram.update`."""
        histogram = torch.zeros(3, 2**self.bits, dtype=torch.int64)
        for part in negative.split(CHUNK):
            histogram[1] += torch.from_numpy(np.bincount(score_bins(part, self.bits).numpy(), minlength=2**self.bits))
        bins = score_bins(positive, self.bits)
        histogram[0] += torch.from_numpy(np.bincount(bins.numpy(), minlength=2**self.bits))
        histogram[2].index_add_(0, bins, weights)
        occupied = (histogram[0] + histogram[1]).nonzero().flatten()
        row = self.names.setdefault(patient, len(self.names))
        self._pending.append((occupied + row * 2**self.bits, histogram[:, occupied]))
        self._pending_size += occupied.numel()
        if self._pending_size > max(2**16, self._keys.numel()):
            self._compact()

    def _compact(self) -> None:
        keys = torch.cat([self._keys, *(keys for keys, _ in self._pending)])
        values = torch.cat([self._values, *(values for _, values in self._pending)], 1)
        self._keys, inverse = torch.unique(keys, return_inverse=True)
        self._values = torch.zeros(3, self._keys.numel(), dtype=torch.int64).index_add_(1, inverse, values)
        self._pending, self._pending_size = [], 0

    def gathered(self) -> PatientHistogram:
        """Return the sum over all ranks, with the patients in the order of their names."""
        self._compact()
        local = list(self.names)
        every = gather_strings(local)
        spelled = dict(zip(every, one_spelling(every), strict=True))
        position = {name: row for row, name in enumerate(sorted(set(spelled.values())))}
        rows = torch.tensor([position[spelled[name]] for name in local], dtype=torch.int64)
        keys = rows[self._keys >> self.bits] * 2**self.bits + (self._keys & (2**self.bits - 1))
        total = PatientHistogram(self.bits)
        total.names = position
        total._pending = [(gather_rows(keys), gather_rows(self._values.T).T)]
        total._compact()
        return total

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return dense counts per patient over at most 1024 groups of neighboring bins, about equally filled.

        Returns:
            positives, negatives and region weights, each (patients, groups) int64, the largest scores first.
        """
        self._compact()
        bins = self._keys & (2**self.bits - 1)
        mass = self._class_mass(bins)
        max_groups = num_groups(len(self.names))
        # a bin joins the group in which the middle of its mass lies
        group = ((torch.cumsum(mass, 0) - 0.5 * mass) * max_groups).to(torch.int64).clamp(0, max_groups - 1)
        used, group = torch.unique(group, return_inverse=True)
        column = used.numel() - 1 - group[bins]
        table = torch.zeros(3, len(self.names) * used.numel(), dtype=torch.int64)
        table.index_add_(1, (self._keys >> self.bits) * used.numel() + column, self._values)
        positives, negatives, weights = table.view(3, len(self.names), used.numel())
        return positives, negatives, weights

    def _class_mass(self, bins: Tensor) -> Tensor:
        """Share of each bin, with both classes of the same total so that rare positives are resolved too."""
        totals = torch.zeros(2, 2**self.bits, dtype=torch.int64).index_add_(1, bins, self._values[:2]).to(torch.float64)
        shares = totals / totals.sum(1, keepdim=True).clamp_min(1.0)
        return F.normalize(shares.sum(0), p=1, dim=0)
