# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Ranking metrics of anomaly scores, computed from counts per distinct score.

Everything here goes through :class:`ScoreCounts`: how many positives and negatives share each distinct score. Counts
are integers, so they do not depend on the order of the samples, ties need no special care, and a histogram of scores
(:mod:`monai_anomaly.functional.score_bins`) or the multiplicities of a bootstrap draw use the same formulas.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ScoreCounts",
    "average_precision",
    "average_precision_from_counts",
    "best_dice",
    "best_dice_from_counts",
    "check_scores",
    "count_positive_scores",
    "count_scores",
    "precision_recall_curve",
    "region_overlap_from_counts",
    "roc_auc",
    "roc_auc_from_counts",
    "roc_curve",
    "sort_values",
    "stable_sum",
]

_SUM_CHUNK = 4096


class ScoreCounts(NamedTuple):
    """Positives and negatives at each distinct score, the largest score first.

    Args:
        thresholds: (G,) distinct scores, descending; samples with score >= threshold are called abnormal.
        positives: (..., G) number (or weight) of positives with that score.
        negatives: (..., G) number (or weight) of negatives with that score.
    """

    thresholds: Tensor
    positives: Tensor
    negatives: Tensor


def check_scores(scores: Tensor, targets: Tensor, require_both: bool = True) -> tuple[Tensor, Tensor]:
    """Flatten scores and targets and refuse what has no defined ranking.

    Args:
        scores: any shape, real; larger is more abnormal. Infinite scores are ranked, NaN is refused.
        targets: same number of elements, 0 or 1 (any dtype).
        require_both: refuse targets in which one of the classes does not occur.

    Raises:
        ValueError: sizes differ, scores are NaN, targets are not 0 or 1, or a class is missing.

    Returns:
        scores (N,) in float32 or float64, targets (N,) bool.
    """
    scores, targets = scores.detach().reshape(-1), targets.detach().reshape(-1)
    if scores.numel() != targets.numel():
        raise ValueError(
            f"scores and targets must have the same number of elements, got {scores.numel()} and {targets.numel()}."
        )
    if scores.dtype != torch.float64:
        scores = scores.to(torch.float32)
    if bool(torch.isnan(scores).any()):
        raise ValueError(
            f"scores must not be NaN, got {int(torch.isnan(scores).sum())} NaN in {scores.numel()} scores."
        )
    positive = targets.to(torch.bool)
    if targets.dtype != torch.bool and not bool((positive == targets).all()):
        raise ValueError(f"targets must be 0 or 1, got {torch.unique(targets)[:8].tolist()}.")
    if require_both:
        _require_both_classes(int(positive.sum()), positive.numel())
    return scores, positive


def _require_both_classes(num_positive: int, total: int) -> None:
    if num_positive == 0:
        raise ValueError(f"targets must hold both classes, got no positive (1) among {total} samples.")
    if num_positive == total:
        raise ValueError(f"targets must hold both classes, got no negative (0) among {total} samples.")


def count_scores(scores: Tensor, targets: Tensor) -> ScoreCounts:
    """Count positives and negatives at each distinct score.

    Args:
        scores: (N,) or any shape, no NaN; larger is more abnormal.
        targets: same number of elements, 0 or 1.

    Raises:
        ValueError: sizes differ, scores are NaN, or targets are not 0 or 1.

    Returns:
        ``ScoreCounts`` with int64 counts.
    """
    scores, positive = check_scores(scores, targets, require_both=False)
    order = torch.argsort(scores, descending=True)
    thresholds, sizes = torch.unique_consecutive(scores[order], return_counts=True)
    ends = torch.cumsum(sizes, 0)
    hits = F.pad(torch.cumsum(positive[order].to(torch.int64), 0), (1, 0))[ends]
    positives = torch.diff(F.pad(hits, (1, 0)))
    return ScoreCounts(thresholds, positives, sizes - positives)


def sort_values(values: Tensor) -> Tensor:
    """Sort (N,) ascending; NumPy's vectorized sort is many times faster than PyTorch's on a CPU."""
    if values.device.type != "cpu":
        return torch.sort(values).values
    return torch.from_numpy(np.sort(values.numpy()))


def count_positive_scores(
    positive: Tensor, negative: Tensor, weights: Tensor | None = None
) -> tuple[ScoreCounts, Tensor]:
    """Count at each distinct score of a positive, and at the gaps between them.

    No metric of this module changes when neighboring scores without a positive are counted together, and in images
    positives are few: this needs two sorts and no table as long as the negatives.

    Args:
        positive: (P,) scores of the positives, no NaN.
        negative: (N,) scores of the negatives, no NaN.
        weights: (P,) int64 weight of each positive; default 1.

    Returns:
        ``ScoreCounts`` of 2 U + 1 entries for U distinct scores, which alternate gap, score, gap, ...; the threshold
        of a gap is that of the score below it, and minus infinity for the last. And (2 U + 1,) the summed weights.
    """
    unique, inverse, sizes = torch.unique(positive, return_inverse=True, return_counts=True)
    ordered = sort_values(negative)
    ends = torch.stack([torch.searchsorted(ordered, unique, side=side) for side in ("left", "right")], 1).reshape(-1)
    negatives = torch.diff(F.pad(F.pad(ends, (1, 0)), (0, 1), value=ordered.numel()))
    thresholds = F.pad(unique.repeat_interleave(2), (1, 0), value=float("-inf"))
    if weights is None:
        weights = torch.ones_like(inverse)
    summed = torch.zeros_like(sizes).index_add_(0, inverse, weights)
    counts = ScoreCounts(thresholds.flip(0), _between_gaps(sizes).flip(0), negatives.flip(0))
    return counts, _between_gaps(summed).flip(0)


def _between_gaps(values: Tensor) -> Tensor:
    return F.pad(torch.stack([torch.zeros_like(values), values], 1).reshape(-1), (0, 1))


def stable_sum(values: Tensor) -> Tensor:
    """Sum the last axis in an order that does not depend on the number of threads."""
    missing = -values.shape[-1] % _SUM_CHUNK
    chunks = F.pad(values, (0, missing)).unflatten(-1, (-1, _SUM_CHUNK))
    return torch.cumsum(chunks.sum(-1), -1)[..., -1]


def _totals(positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return float64 (positives, negatives) per score and their running sums (0 / 0 later where a class is missing)."""
    p, n = positives.to(torch.float64), negatives.to(torch.float64)
    return p, n, torch.cumsum(p, -1), torch.cumsum(n, -1)


def roc_auc_from_counts(positives: Tensor, negatives: Tensor) -> Tensor:
    r"""Area under the ROC curve from counts per score, :math:`\sum_g p_g (N_{<g} + n_g / 2) / (P N)`.

    Args:
        positives: (..., G) counts or weights per distinct score, the largest score first.
        negatives: (..., G) likewise.

    Returns:
        (...) float64; NaN where one class has no weight.
    """
    p, n, tp, fp = _totals(positives, negatives)
    below = fp[..., -1:] - fp
    return stable_sum(p * (below + 0.5 * n)) / (tp[..., -1] * fp[..., -1])


def average_precision_from_counts(positives: Tensor, negatives: Tensor) -> Tensor:
    r"""Average precision from counts per score, :math:`\sum_g (R_g - R_{g-1}) P_g` without interpolation.

    Args:
        positives: (..., G) counts or weights per distinct score, the largest score first.
        negatives: (..., G) likewise.

    Returns:
        (...) float64; NaN where one class has no weight.
    """
    p, _, tp, fp = _totals(positives, negatives)
    precision = tp / (tp + fp).clamp_min(torch.finfo(torch.float64).tiny)
    area = stable_sum(p * precision) / tp[..., -1]
    return torch.where(fp[..., -1] > 0, area, torch.nan)


def best_dice_from_counts(positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    r"""Largest Dice :math:`2 TP / (TP + FP + P)` over all thresholds, and the position of that threshold.

    Args:
        positives: (..., G) counts or weights per distinct score, the largest score first.
        negatives: (..., G) likewise.

    Returns:
        (...) float64 Dice, NaN without positives; (...) int64 index of the first (strictest) best threshold.
    """
    _, _, tp, fp = _totals(positives, negatives)
    dice = 2.0 * tp / (tp + fp + tp[..., -1:])
    index = torch.argmax(torch.nan_to_num(dice, nan=-1.0), dim=-1)
    return torch.gather(dice, -1, index.unsqueeze(-1)).squeeze(-1), index


def _checked_counts(scores: Tensor, targets: Tensor) -> ScoreCounts:
    return count_scores(*check_scores(scores, targets))


def _positive_counts(scores: Tensor, targets: Tensor) -> ScoreCounts:
    scores, positive = check_scores(scores, targets)
    return count_positive_scores(scores[positive], scores[~positive])[0]


def region_overlap_from_counts(weights: Tensor, negatives: Tensor, max_fpr: float = 0.3) -> Tensor:
    r"""Normalized area under the per-region-overlap curve up to a false positive rate, from counts per score.

    The curve joins its points by straight lines, also at ``max_fpr``, where it is cut.

    Args:
        weights: (..., G) sum over the positives with that score of 1 / size of their region, the largest score first.
        negatives: (..., G) number of negatives with that score.
        max_fpr: upper end of the false positive rate, in (0, 1].

    Returns:
        (...) float64 in [0, 1]; NaN without regions or negatives.
    """
    w, n, recall, fp = _totals(weights, negatives)
    end = max_fpr * fp[..., -1:]
    left, right = torch.minimum(fp - n, end), torch.minimum(fp, end)
    # within a group both rates grow in proportion; groups without negatives have no width
    share = torch.where(n > 0, (0.5 * (right - left)) / n.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    area = stable_sum((right - left) * (recall - w + w * share))
    return area / (end[..., 0] * recall[..., -1])


def roc_auc(scores: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve; ties count one half (the Mann-Whitney statistic).

    Args:
        scores: (N,) or any shape, no NaN; larger is more abnormal.
        targets: same number of elements, 0 or 1, both present.

    Raises:
        ValueError: sizes differ, scores are NaN, targets are not 0 or 1, or a class is missing.

    Returns:
        the area in [0, 1].
    """
    counts = _positive_counts(scores, targets)
    return float(roc_auc_from_counts(counts.positives, counts.negatives))


def average_precision(scores: Tensor, targets: Tensor) -> float:
    """Average precision: the area under the precision-recall curve in steps, as scikit-learn defines it.

    A random score gives the prevalence of the positives, so report the two together.

    Args:
        scores: (N,) or any shape, no NaN; larger is more abnormal.
        targets: same number of elements, 0 or 1, both present.

    Raises:
        ValueError: sizes differ, scores are NaN, targets are not 0 or 1, or a class is missing.

    Returns:
        the area in (0, 1].
    """
    counts = _positive_counts(scores, targets)
    return float(average_precision_from_counts(counts.positives, counts.negatives))


def best_dice(scores: Tensor, targets: Tensor) -> tuple[float, float]:
    """Best possible Dice over all thresholds and all samples together (the largest F1 on the precision-recall curve).

    The threshold is chosen on the labels that it is measured on: an upper bound ("oracle"), not what a user would get.
    A constant score gives ``2 p / (1 + p)`` with ``p`` the prevalence.

    Args:
        scores: (N,) or any shape, no NaN; larger is more abnormal.
        targets: same number of elements, 0 or 1, both present.

    Raises:
        ValueError: sizes differ, scores are NaN, targets are not 0 or 1, or a class is missing.

    Returns:
        Dice in (0, 1], and the threshold; samples with score >= threshold are called abnormal.

    Reference:
        Lagogiannis et al., "Unsupervised pathology detection: a deep dive into the state of the art", IEEE TMI 2023.
    """
    counts = _positive_counts(scores, targets)
    dice, index = best_dice_from_counts(counts.positives, counts.negatives)
    return float(dice), float(counts.thresholds[index])


def roc_curve(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Receiver operating characteristic at every distinct score.

    Args:
        scores: (N,) or any shape, no NaN; larger is more abnormal.
        targets: same number of elements, 0 or 1, both present.

    Raises:
        ValueError: sizes differ, scores are NaN, targets are not 0 or 1, or a class is missing.

    Returns:
        false positive rate, true positive rate and threshold, each (G + 1,) float64, from (0, 0) at threshold infinity.
    """
    counts = _checked_counts(scores, targets)
    _, _, tp, fp = _totals(counts.positives, counts.negatives)
    thresholds = F.pad(counts.thresholds.to(torch.float64), (1, 0), value=float("inf"))
    return F.pad(fp / fp[-1], (1, 0)), F.pad(tp / tp[-1], (1, 0)), thresholds


def precision_recall_curve(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision and recall at every distinct score, the strictest threshold first.

    Args:
        scores: (N,) or any shape, no NaN; larger is more abnormal.
        targets: same number of elements, 0 or 1, both present.

    Raises:
        ValueError: sizes differ, scores are NaN, targets are not 0 or 1, or a class is missing.

    Returns:
        precision, recall and threshold, each (G + 1,) float64, from (precision 1, recall 0) at threshold infinity.
    """
    counts = _checked_counts(scores, targets)
    _, _, tp, fp = _totals(counts.positives, counts.negatives)
    thresholds = F.pad(counts.thresholds.to(torch.float64), (1, 0), value=float("inf"))
    return F.pad(tp / (tp + fp), (1, 0), value=1.0), F.pad(tp / tp[-1], (1, 0)), thresholds


#: the metrics of image scores that need no threshold, by the names they have in ``metrics.json``
IMAGE_STATISTICS = {"image_auroc": roc_auc_from_counts, "image_ap": average_precision_from_counts}
