# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from ..functional.binned_curves import BinnedCounts
from ..functional.curves import count_positive_scores
from ..functional.regions import region_weights
from ..functional.score_bins import check_bits
from .gather import gather_rows, gather_strings
from .image_accumulator import first_of_each, patient_names
from .patient_histogram import PatientHistogram, patient_rows, quantile_tables
from .score_histogram import ScoreHistogram

__all__ = ["MODES", "PixelAccumulator", "PixelCounts"]

MODES = ("auto", "exact", "streaming")
#: more regions than this would overflow the sum of their integer weights
MAX_REGIONS = 2**20
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


class PixelCounts(NamedTuple):
    """What the pixel metrics need of all images of all ranks.

    Args:
        counts: positives, negatives and region weights per score or bin.
        mode: "exact" or "streaming".
        num_regions: number of connected abnormal regions.
        tables: positives, negatives and region weights per patient and bin, for intervals; None where not kept.
    """

    counts: BinnedCounts
    mode: str
    num_regions: int
    tables: tuple[Tensor, Tensor, Tensor] | None


class _Record(NamedTuple):
    """The annotated pixels of one image."""

    patient: str
    position: int
    negative: Tensor
    positive: Tensor
    weights: Tensor
    regions: int

    @property
    def size(self) -> int:
        return self.negative.numel() + self.positive.numel()


class PixelAccumulator:
    """Collects pixel scores once for all pixel metrics, in bounded memory, over batches and ranks.

    In "exact" mode every annotated pixel is kept (4 bytes each). In "streaming" mode only histograms are kept, of
    ``32 * 2 ** bits`` bytes (2 MiB), and the metrics come with a bound of their error. "auto" starts exact and changes
    to streaming when all ranks together hold more than ``max_exact_pixels``; which one it is depends on the data alone,
    not on how ranks share them. No rank ever holds more than that many pixels plus one image until it changes.

    Scores are taken as float32; numbers below the least normal one (1.2e-38) in magnitude count as zero.

    Args:
        mode: "auto", "exact" or "streaming".
        max_exact_pixels: annotated pixels of all ranks up to which "auto" stays exact.
        bits: the histogram has 2 ** bits bins; 10 to 24.
        connectivity: neighborhood of the regions of PRO, see ``functional.regions.region_weights``.
        keep_patients: keep what intervals over patients need (see :class:`PatientHistogram` for the memory).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        mode: str = "auto",
        max_exact_pixels: int = 20_000_000,
        bits: int = 16,
        connectivity: int | None = None,
        keep_patients: bool = False,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}.")
        if max_exact_pixels < 0:
            raise ValueError(f"max_exact_pixels must be at least 0, got {max_exact_pixels}.")
        check_bits(bits)
        self.mode, self.max_exact_pixels, self.bits = mode, int(max_exact_pixels), bits
        self.connectivity, self.keep_patients = connectivity, keep_patients
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._records: list[_Record] = []
        self._stored = 0
        self._histogram = ScoreHistogram(self.bits) if self.mode == "streaming" else None
        self._patients = PatientHistogram()
        self._sizes: list[tuple[int, int, int]] = []
        self._seen: set[int] = set()
        self._gathered: PixelCounts | None = None

    def update(
        self,
        maps: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
        patients: Sequence[Any] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Add images.

        Args:
            maps: (B, 1, *S) or a list of (1, *S), which may differ in size; larger is more abnormal.
            labels: likewise; 0 normal, 1 abnormal, below 0 not annotated (ignored).
            patients: patient of each image; images without one count as patients of their own.
            indices: position of each image in its data list; an image with an index seen before is ignored.

        Raises:
            ValueError: map and label differ in shape, a map is NaN where annotated, or a label has another value.
        """
        positions = [-1] * len(maps) if indices is None else [int(i) for i in indices]
        names = patient_names(patients, positions, len(self._sizes))
        for score, label, name, index in zip(maps, labels, names, positions, strict=True):
            if index >= 0 and index in self._seen:
                continue
            self._seen.add(index)
            self._add(self._record(score, label, name, index))
        self._gathered = None

    def _record(self, score: Tensor, label: Tensor, patient: str, index: int) -> _Record:
        score = convert_to_tensor(score.detach(), dtype=torch.float32, device="cpu", track_meta=False)
        label = convert_to_tensor(label.detach(), device="cpu", track_meta=False)
        if score.shape != label.shape or score.shape[:1] != (1,):
            raise ValueError(
                f"map and label of an image must both be (1, *S), got {tuple(score.shape)} and {tuple(label.shape)} "
                f"(index {index}): resize the map to the label first."
            )
        # NumPy, because PyTorch's threads cost more than they save on the pixels of one image
        values, classes = score.numpy(), label.numpy()
        abnormal, normal = classes == 1, classes == 0
        counts = np.count_nonzero(abnormal), np.count_nonzero(normal)
        if sum(counts) < classes.size and sum(counts) + np.count_nonzero(classes < 0) < classes.size:
            raise ValueError(
                f"labels must be 0, 1 or negative, got {torch.unique(label)[:8].tolist()} (index {index}): "
                "resample masks with the nearest neighbor."
            )
        negative = values.flatten() if counts[1] == classes.size else values[normal]
        positive = values[abnormal]
        # the minimum of anything with NaN is NaN
        if any(part.size and np.isnan(part.min()) for part in (negative, positive)):
            raise ValueError(
                f"maps must not be NaN where annotated, got NaN for the image of {patient!r} (index {index})."
            )
        weights, regions = torch.zeros(0, dtype=torch.int64), 0
        if positive.size > 0:
            weights, regions = region_weights(torch.from_numpy(abnormal[0]), self.connectivity)
        return _Record(patient, index, torch.from_numpy(negative), torch.from_numpy(positive), weights, regions)

    def _add(self, record: _Record) -> None:
        self._sizes.append((record.position, record.size, record.regions))
        if self._histogram is not None:
            self._bin(self._histogram, record)
            return
        self._records.append(record)
        self._stored += record.size
        if self.mode == "auto" and self._stored > self.max_exact_pixels:
            self._stream()

    def _stream(self) -> ScoreHistogram:
        """Change from kept pixels to histograms, if not done yet."""
        if self._histogram is None:
            self._histogram = ScoreHistogram(self.bits)
            for record in self._records:
                self._bin(self._histogram, record)
            self._records, self._stored = [], 0
        return self._histogram

    def _bin(self, histogram: ScoreHistogram, record: _Record) -> None:
        histogram.update(record.negative, record.positive, record.weights)
        if self.keep_patients:
            self._patients.update(record.patient, record.negative, record.positive, record.weights)

    def gathered(self) -> PixelCounts:
        """Return the counts of all ranks; every rank must call this.

        Raises:
            ValueError: two ranks hold the same image and the pixels are no longer kept, so that it cannot be removed.
        """
        if self._gathered is None:
            sizes = gather_rows(torch.tensor(self._sizes, dtype=torch.int64).reshape(-1, 3))
            keep = first_of_each(sizes[:, 0])
            _, total, regions = sizes[keep].sum(0).tolist()
            if regions > MAX_REGIONS:
                raise ValueError(f"at most {MAX_REGIONS} regions can be weighed, got {regions}: are the masks noise?")
            if self.mode == "streaming" or (self.mode == "auto" and total > self.max_exact_pixels):
                self._gathered = self._gather_histograms(sizes[~keep, 0], regions)
            else:
                self._gathered = self._gather_pixels(keep, regions)
        return self._gathered

    def _gather_histograms(self, repeated: Tensor, regions: int) -> PixelCounts:
        if repeated.numel() > 0:
            raise ValueError(
                f"the images with index {repeated[:8].tolist()} were evaluated by two ranks and would count twice: "
                "use monai.data.DistributedSampler(even_divisible=False)."
            )
        histogram = self._stream()
        tables = self._patients.gathered().tables() if self.keep_patients else None
        return PixelCounts(histogram.gathered().counts(), "streaming", regions, tables)

    def _gather_pixels(self, keep: Tensor, regions: int) -> PixelCounts:
        sizes = torch.tensor([(r.negative.numel(), r.positive.numel()) for r in self._records], dtype=torch.int64)
        lengths = gather_rows(sizes.reshape(-1, 2))
        kept = [torch.repeat_interleave(keep, lengths[:, column]) for column in (0, 1)]
        empty = torch.zeros(0)
        negative = gather_rows(torch.cat([empty, *(r.negative for r in self._records)]))[kept[0]]
        positive = gather_rows(torch.cat([empty, *(r.positive for r in self._records)]))[kept[1]]
        weights = gather_rows(torch.cat([empty.to(torch.int64), *(r.weights for r in self._records)]))[kept[1]]
        negative, positive = _flush(negative), _flush(positive)
        counts, summed = count_positive_scores(positive, negative, weights)
        tied = torch.ones_like(counts.thresholds, dtype=torch.bool)
        binned = BinnedCounts(counts.thresholds, counts.positives, counts.negatives, summed, tied)
        tables = None
        if self.keep_patients:
            names = gather_strings([r.patient for r in self._records])
            rows = patient_rows([name for name, k in zip(names, keep.tolist(), strict=True) if k])
            owners = [torch.repeat_interleave(rows, lengths[keep, column]) for column in (0, 1)]
            tables = quantile_tables(negative, positive, weights, owners[0], owners[1])
        return PixelCounts(binned, "exact", regions, tables)


def _flush(scores: Tensor) -> Tensor:
    """Turn subnormal numbers and the negative zero into zero, as the histogram does."""
    return torch.where(scores.abs() < _SMALLEST_NORMAL, 0.0, scores)
