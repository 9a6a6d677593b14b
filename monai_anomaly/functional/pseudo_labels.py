# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Mode = Literal["per_predicted_class", "global"]

logger = logging.getLogger(__name__)


class PseudoLabels(NamedTuple):
    """Result of :func:`pseudo_labels`.

    Args:
        normal: positions of the images taken as healthy, ascending, int64; empty where there is none.
        abnormal: positions of the images taken as anomalous.
        threshold_normal: lowest probability of the class *healthy*, 1 - p, among those kept; NaN where there is none.
        threshold_abnormal: lowest probability p among the anomalous ones kept; NaN where there is none.
    """

    normal: Tensor
    abnormal: Tensor
    threshold_normal: float
    threshold_abnormal: float


class Purity(NamedTuple):
    """Result of :func:`purity`: shares in [0, 1] of the pseudo-labels that are true; NaN where that is unknown."""

    normal: float
    abnormal: float


def pseudo_labels(
    probabilities: Tensor | Sequence[float], percent: float = 50.0, mode: Mode = "per_predicted_class"
) -> PseudoLabels:
    r"""Choose the unlabeled images that a classifier is surest of, as healthy or as anomalous.

    With ``p`` the probability of the class *anomalous*, of each class the share ``percent`` with the highest confidence
    is kept:

    - ``"per_predicted_class"``: an image belongs to the class it is predicted as (anomalous where p >= 1/2) and
      competes with the others of this class by :math:`\max(p, 1 - p)`; the other images are used for neither class.
    - ``"global"``: all images compete for both classes, by 1 - p and by p. At 50 percent every image is used, and
      nothing is rejected; above 50, where the two overlap, an image goes to the class it is predicted as.

    The threshold of a class is the (100 - ``percent``)-th percentile, and what reaches it is kept: an image as sure as
    the last one kept is kept as well. Where such ties bring in more than a twentieth of the competing images, rounded
    up, above the share asked (saturated or constant probabilities), ranks decide instead, ties broken by an order drawn
    with a fixed seed, so that the order of the images cannot carry their classes in. A single image more is never too
    many.

    Args:
        probabilities: (N,) probability of *anomalous* of each unlabeled image, in [0, 1].
        percent: share of the competing images that is kept, in (0, 100]; default 50, as in the paper, which speaks of
            the "top K-th percentile of all given confidence values" and leaves open which values compete.
        mode: ``"per_predicted_class"`` (default), the reading that rejects what is unsure, or ``"global"``.

    Returns:
        Positions and thresholds. A class without any image gives an empty tensor and a warning: whether that is an
        error is the caller's to say.

    Raises:
        ValueError: for no probabilities, NaN or values outside [0, 1], and for other settings.

    Reference:
        Bozorgtabar et al., "AMAE: Adaptation of Pre-trained Masked Autoencoder for Dual-distribution Anomaly Detection
        in Chest X-Rays", MICCAI 2023, section 2.2.
    """
    if mode not in _COMPETITORS:
        raise ValueError(f"mode must be one of {list(_COMPETITORS)}, got {mode!r}")
    if not 0 < percent <= 100:
        raise ValueError(f"percent must be in (0, 100], got {percent!r}")
    abnormal = _checked(probabilities)
    normal = 1 - abnormal
    competes = _COMPETITORS[mode](abnormal)
    rank = _ranks(abnormal)  # one for both classes: where ties are broken, none of them wins both contests
    chosen = [_surest(normal, -rank, competes[0], percent), _surest(abnormal, rank, competes[1], percent)]
    if mode == "global":  # an image can win both contests; one that belongs to two classes teaches neither
        chosen = [chosen[0] & ~(chosen[1] & (abnormal >= 0.5)), chosen[1] & ~(chosen[0] & (abnormal < 0.5))]
    result = PseudoLabels(
        chosen[0].nonzero()[:, 0],
        chosen[1].nonzero()[:, 0],
        _lowest(normal[chosen[0]]),
        _lowest(abnormal[chosen[1]]),
    )
    for name, positions in (("healthy", result.normal), ("anomalous", result.abnormal)):
        if len(positions) == 0:
            logger.warning("none of %d unlabeled images is taken as %s", len(abnormal), name)
    return result


def purity(labels: PseudoLabels, targets: Tensor | Sequence[int]) -> Purity:
    """Return how many pseudo-labels are true, for a report only: no method may see the targets of unlabeled images.

    The share of a class is told only where all images that are taken for it are known, since those that are need not be
    like the others.

    Args:
        labels: the pseudo-labels of N images.
        targets: (N,) 0 healthy, 1 anomalous, anything else unknown.

    Raises:
        ValueError: when a pseudo-label stands for a position that ``targets`` does not have.
    """
    truth = torch.as_tensor(targets)
    last = max((int(positions.max()) for positions in labels[:2] if len(positions)), default=-1)
    if truth.ndim != 1 or last >= len(truth):
        raise ValueError(f"targets must be (N,) with N > {last}, the last position labeled, got {tuple(truth.shape)}")
    return Purity(_share(truth[labels.normal], 0), _share(truth[labels.abnormal], 1))


def _checked(probabilities: Tensor | Sequence[float]) -> Tensor:
    values = torch.as_tensor(probabilities, dtype=torch.float64, device="cpu").detach()
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"probabilities must be (N,), one for each of N >= 1 images, got shape {tuple(values.shape)}")
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(f"probabilities must be in [0, 1], got {float(values[first])} for image {first}")
    return values


def _predicted_class(abnormal: Tensor) -> tuple[Tensor, Tensor]:
    return abnormal < 0.5, abnormal >= 0.5


def _everyone(abnormal: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(abnormal, dtype=torch.bool), torch.ones_like(abnormal, dtype=torch.bool)


_COMPETITORS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "per_predicted_class": _predicted_class,
    "global": _everyone,
}
_TIES_ALLOWED = 0.05


def _ranks(values: Tensor) -> Tensor:
    """Positions in ascending order, ties in an order drawn with a fixed seed."""
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    order = shuffled[values[shuffled].argsort(stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(values)))


def _surest(confidence: Tensor, rank: Tensor, competes: Tensor, percent: float) -> Tensor:
    """Which images are among the surest ``percent`` of those that compete, (N,) bool."""
    kept = torch.zeros_like(competes)
    positions = competes.nonzero()[:, 0]
    number = len(positions)
    if number == 0:
        return kept
    # how many values reach their (linear) percentile; rounded, else the last bit of a float would decide
    wanted = number - math.ceil(round((number - 1) * (1 - percent / 100), 9))
    first = positions[rank[positions].argsort(descending=True)[:wanted]]
    kept[first] = True
    at_least = competes & (confidence >= confidence[first].min())
    return at_least if int(at_least.sum()) <= wanted + math.ceil(_TIES_ALLOWED * number) else kept


def _lowest(confidence: Tensor) -> float:
    return float(confidence.min()) if len(confidence) else math.nan


def _share(targets: Tensor, wanted: int) -> float:
    known = ((targets == 0) | (targets == 1)).all()
    return float((targets == wanted).double().mean()) if len(targets) and known else math.nan
