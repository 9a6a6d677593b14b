# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Percentile bootstrap over patients.

Images of one patient resemble each other, so patients, not images or pixels, are drawn with replacement; all images
of a patient come along. A draw is a vector of multiplicities, the metric of a draw a metric of weighted counts, and
hundreds of draws are computed at once without copying a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from ..utils import one_spelling
from .curves import check_scores

__all__ = [
    "Interval",
    "bootstrap_counts",
    "bootstrap_scores",
    "draw_multiplicities",
    "draw_score_statistics",
    "percentile_interval",
]

#: a function of (D, G) weighted positives and negatives per score that returns (D,) values, NaN where undefined
CountStatistic = Callable[[Tensor, Tensor], Tensor]

_CHUNK_ELEMENTS = 2**24


class Interval(TypedDict):
    """A value with its interval; ``low`` and ``high`` are None where no interval can be given."""

    value: float
    low: float | None
    high: float | None
    dropped: int


def draw_multiplicities(num_patients: int, num_draws: int, generator: torch.Generator) -> Tensor:
    """Draw ``num_patients`` patients with replacement, ``num_draws`` times.

    Args:
        num_patients: number of patients, at least 1.
        num_draws: number of draws.
        generator: seeded CPU generator.

    Returns:
        (num_draws, num_patients) float64, how often each draw holds each patient.
    """
    picks = torch.randint(num_patients, (num_draws, num_patients), generator=generator)
    counts = torch.zeros(num_draws, num_patients, dtype=torch.float64)
    return counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))


def percentile_interval(value: float, draws: Tensor, level: float = 0.95) -> Interval:
    """Turn a metric's values over the draws into a percentile interval; draws with NaN are dropped and counted.

    Args:
        value: the metric of the data itself.
        draws: (D,) its values over the draws.
        level: coverage in (0, 1).

    Returns:
        the interval, without ends when ``value`` is NaN or fewer than two draws are defined.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}.")
    defined = draws[~torch.isnan(draws)]
    dropped = draws.numel() - defined.numel()
    if value != value or defined.numel() < 2:
        return Interval(value=value, low=None, high=None, dropped=dropped)
    tail = 0.5 * (1.0 - level)
    low, high = torch.quantile(defined, torch.tensor([tail, 1.0 - tail], dtype=defined.dtype)).tolist()
    return Interval(value=value, low=low, high=high, dropped=dropped)


def _draw_statistics(
    statistics: Mapping[str, CountStatistic],
    counts_of: Callable[[Tensor], tuple[Tensor, ...]],
    num_patients: int,
    elements: int,
    num_draws: int,
    seed: int,
) -> dict[str, Tensor]:
    """Evaluate every statistic on all draws, a chunk of draws at a time."""
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _CHUNK_ELEMENTS // max(elements, num_patients, 1))
    values: dict[str, list[Tensor]] = {name: [] for name in statistics}
    for start in range(0, num_draws, chunk):
        counts = counts_of(draw_multiplicities(num_patients, min(chunk, num_draws - start), generator))
        for name, statistic in statistics.items():
            values[name].append(statistic(*counts))
    return {name: torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64) for name, parts in values.items()}


def draw_score_statistics(
    statistics: Mapping[str, CountStatistic],
    scores: Tensor,
    targets: Tensor,
    patients: Sequence[str] | Tensor,
    num_draws: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics of image scores, and the same on resampled patients.

    The draws depend on the patients and the seed only, so those of several methods or runs on the same images are
    paired: their mean or difference, draw by draw, is a draw of the mean or difference.

    Args:
        statistics: functions of weighted counts per distinct score, such as ``functional.curves.roc_auc_from_counts``
            and ``average_precision_from_counts``; all see the same draws.
        scores: (N,) no NaN; larger is more abnormal.
        targets: (N,) 0 or 1.
        patients: (N,) patient of each image, names or integers. With a single patient there are no draws.
        num_draws: number of draws D; 0 gives values only.
        seed: seed of the draws; the order of the images does not matter.

    Raises:
        ValueError: sizes differ, scores are NaN or targets are not 0 or 1.

    Returns:
        per statistic its value, NaN where a class is missing, and its values on the draws (D,).
    """
    scores, positive = check_scores(scores, targets, require_both=False)
    scores, positive = scores.cpu(), positive.cpu()
    names = patients.tolist() if isinstance(patients, Tensor) else one_spelling(patients)
    if len(names) != scores.numel():
        raise ValueError(f"patients must hold one entry per score ({scores.numel()}), got {len(names)}.")
    position = {name: i for i, name in enumerate(sorted(set(names)))}
    patient = torch.tensor([position[name] for name in names], dtype=torch.int64)
    distinct, group = torch.unique(scores, return_inverse=True)
    group = distinct.numel() - 1 - group
    columns = max(distinct.numel(), 1)

    def counts_of(multiplicities: Tensor) -> tuple[Tensor, Tensor]:
        weights = multiplicities[:, patient]
        empty = weights.new_zeros(len(weights), columns)
        return (
            empty.index_add(1, group[positive], weights[:, positive]),
            empty.index_add(1, group[~positive], weights[:, ~positive]),
        )

    once = counts_of(torch.ones(1, max(len(position), 1), dtype=torch.float64))
    draws = num_draws if len(position) > 1 else 0
    drawn = _draw_statistics(statistics, counts_of, len(position), scores.numel(), draws, seed)
    return {name: float(statistic(*once)) for name, statistic in statistics.items()}, drawn


def bootstrap_scores(
    statistics: Mapping[str, CountStatistic],
    scores: Tensor,
    targets: Tensor,
    patients: Sequence[str] | Tensor,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of metrics of image scores over patients, e.g. ``{"image_auroc": roc_auc_from_counts}``.

    Args:
        statistics: see :func:`draw_score_statistics`.
        scores: (N,) no NaN; larger is more abnormal.
        targets: (N,) 0 or 1.
        patients: (N,) patient of each image; with a single patient no interval can be given.
        num_draws: number of draws; 0 gives values without intervals.
        level: coverage of the interval.
        seed: seed of the draws.

    Raises:
        ValueError: sizes differ, scores are NaN or targets are not 0 or 1.

    Returns:
        per statistic its value and interval; the value is NaN where a class is missing.
    """
    values, drawn = draw_score_statistics(statistics, scores, targets, patients, num_draws, seed)
    return {name: percentile_interval(values[name], drawn[name], level) for name in statistics}


def bootstrap_counts(
    statistics: Mapping[str, Callable[..., Tensor]],
    tables: Sequence[Tensor],
    values: Mapping[str, float],
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bootstrap metrics of pixels over patients from a table of counts per patient and bin.

    The bins are coarser than the scores, so the metric of the table differs a little from the exact value; each draw is
    shifted by that difference (and kept in [0, 1]) so that the interval belongs to the exact value.

    Args:
        statistics: functions of weighted counts, called with one (D, G) tensor per table.
        tables: each (patients, G) counts per bin, the largest scores first, such as positives and negatives.
        values: the exact value of each statistic.
        num_draws: number of draws.
        level: coverage of the interval.
        seed: seed of the draws.

    Returns:
        per statistic the given value and its interval.
    """
    exact = [table.to(torch.float64) for table in tables]
    num_patients, num_bins = exact[0].shape

    def counts_of(multiplicities: Tensor) -> tuple[Tensor, ...]:
        # products and sums of integers below 2 ** 53: exact, hence the same on any number of threads
        return tuple(multiplicities @ table for table in exact)

    once = counts_of(torch.ones(1, num_patients, dtype=torch.float64))
    draws = num_draws if num_patients > 1 else 0
    drawn = _draw_statistics(statistics, counts_of, num_patients, num_bins * len(exact), draws, seed)
    result = {}
    for name, statistic in statistics.items():
        shifted = (drawn[name] + (values[name] - statistic(*once))).clamp(0.0, 1.0)
        result[name] = percentile_interval(values[name], shifted, level)
    return result
