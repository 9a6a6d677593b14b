# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Trivial baselines: anomaly scores that need no learning, as a bar for every method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.linalg import eigh
from torch import Tensor

from ...functional.curves import average_precision, roc_auc
from .screening import Screen, products_above

PCA_COMPONENTS = 30
_MOST_PCA_IMAGES = 4000
_OTSU_BINS = 256
_BLOCK = 1024
_SAMPLE, _RANK = 1024, 255
_QUERY_VALUES = 1 << 25  # of the images compared with the training images at a time: 128 MiB
_HALF = {2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class SectionFeatures:
    """What the baselines of one section are computed from.

    Args:
        thumbnails: (N, *S) float32.
        mean: (N,) mean intensity.
        contrast: (N,) standard deviation.
        sharpness: (N,) variance of the Laplacian.
        z: (N,) slice positions, or None where any is unknown.
    """

    thumbnails: Tensor
    mean: Tensor
    contrast: Tensor
    sharpness: Tensor
    z: Tensor | None = None


def otsu_thresholds(images: Tensor) -> Tensor:
    """Return Otsu's threshold of each image: the gray value that best parts it in two classes.

    Maximizes the between-class variance ``w0 w1 (m1 - m0)^2`` over a histogram of 256 bins between minimum and maximum
    of the image. Reference: Otsu, IEEE Transactions on Systems, Man, and Cybernetics 1979, Eq. 18.

    Args:
        images: (N, *S) real.

    Returns:
        (N,) thresholds; pixels above belong to the brighter class. A constant image gets its own value.
    """
    return torch.cat([_otsu_thresholds(block.flatten(1)) for block in images.split(_BLOCK)])


def _otsu_thresholds(flat: Tensor) -> Tensor:
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    span = (high - low).clamp_min(torch.finfo(flat.dtype).tiny)
    bins = ((flat - low) / span * _OTSU_BINS).long().clamp_(0, _OTSU_BINS - 1)
    counts = torch.zeros(len(flat), _OTSU_BINS, dtype=torch.float64)
    counts.scatter_add_(1, bins, torch.ones_like(flat, dtype=torch.float64))
    centers = (torch.arange(_OTSU_BINS, dtype=torch.float64) + 0.5) / _OTSU_BINS
    weight = counts.cumsum(1) / flat.shape[1]
    moment = (counts * centers).cumsum(1) / flat.shape[1]
    spread = (moment[:, -1:] * weight - moment) ** 2 / (weight * (1 - weight)).clamp_min(1e-12)
    best = spread[:, :-1].argmax(1)
    edge = (best + 1).to(flat.dtype) / _OTSU_BINS
    return torch.where(high > low, low + span * edge[:, None], high)[:, 0]


def foreground_area(thumbnails: Tensor) -> Tensor:
    """Return the share of pixels at or above Otsu's threshold, (N,) in [0, 1]; 0 for a constant image."""
    return torch.cat([_foreground_area(block.flatten(1)) for block in thumbnails.split(_BLOCK)])


def _foreground_area(flat: Tensor) -> Tensor:
    share = (flat >= _otsu_thresholds(flat)[:, None]).to(torch.float64).mean(1)
    return torch.where(flat.amax(1) > flat.amin(1), share, torch.zeros_like(share))


def pca_errors(training: Tensor, images: Tensor, components: int = PCA_COMPONENTS, seed: int = 0) -> Tensor:
    """Return the mean squared error of reconstructing each image from the training images' principal components.

    ``|| (x - m) - V V^T (x - m) ||^2 / P`` with the mean ``m`` and the leading right singular vectors ``V`` of the
    centered training images, on thumbnails halved to 32x32 (16x16x16 in 3D) with P pixels.

    Args:
        training: (N, *S) thumbnails.
        images: (M, *S) thumbnails.
        components: number of components, at least 1; at most N - 1 are used.
        seed: of the choice of 4,000 training images where there are more.

    Returns:
        (M,) float64.
    """
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")
    chosen = training
    if len(training) > _MOST_PCA_IMAGES:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
        chosen = training[order[:_MOST_PCA_IMAGES]]
    points = _halve(chosen).to(torch.float64)
    center = points.mean(0)
    basis = _leading_directions(points - center, min(components, len(points) - 1))
    errors = []
    for block in images.split(_BLOCK):
        residual = _halve(block).to(torch.float64) - center
        residual = residual - (residual @ basis) @ basis.T
        errors.append(residual.square().mean(1))
    return torch.cat(errors)


def nearest_distances(training: Tensor, images: Tensor) -> Tensor:
    """Return the distance of each image to the nearest training image, after removing brightness and contrast.

    ``min_t || u(x) - u(t) ||`` where ``u`` subtracts the mean and divides by the norm; between 0 and 2.

    Args:
        training: (N, *S) thumbnails.
        images: (M, *S) thumbnails.

    Returns:
        (M,) float64.
    """
    screen = Screen(unit_vectors(training[:: max(1, len(training) // _SAMPLE)][:_SAMPLE].flatten(1)), _RANK)
    rows = max(1, _QUERY_VALUES // training[0].numel())
    best = torch.cat([_largest_cosines(screen, training, block) for block in images.split(rows)])
    return (2 - 2 * best.to(torch.float64)).clamp_min(0).sqrt()


def _largest_cosines(screen: Screen, training: Tensor, images: Tensor) -> Tensor:
    """The largest inner product (M,) of the unit vector of each image with those of the training images."""
    queries = unit_vectors(images.flatten(1))
    mine = screen.coordinates(queries)
    best = queries.new_full((len(queries),), -1.0)
    for block in training.split(_BLOCK):
        references = unit_vectors(block.flatten(1))
        theirs = screen.coordinates(references)
        likely = references[(mine @ theirs.T).argmax(1)]  # a good one to begin with rules most others out
        best = torch.maximum(best, (queries * likely).sum(1))
        pairs, products = products_above((queries, references), (mine, theirs), best)
        best.scatter_reduce_(0, pairs // len(references), products, "amax")
    return best


def unit_vectors(vectors: Tensor) -> Tensor:
    """Subtract each row's mean and divide by its norm; a constant row becomes zero."""
    centered = vectors - vectors.mean(1, keepdim=True)
    return F.normalize(centered, dim=1, eps=1e-12)


def baseline_scores(training: SectionFeatures | None, section: SectionFeatures, seed: int = 0) -> dict[str, Tensor]:
    """Return the anomaly scores of each trivial baseline, signs as they stand: none is flipped to look better.

    Args:
        training: features of the healthy training images; None leaves out the baselines that need them.
        section: features of the images to score.
        seed: see :func:`pca_errors`.

    Returns:
        Name to (N,) float64 scores: ``mean_intensity``, ``contrast``, ``sharpness``, ``foreground_area``, and with
        training images ``slice_position`` (distance from their median position, where every ``z`` is known),
        ``pca_reconstruction`` and ``nearest_training_image``.
    """
    scores = {
        "mean_intensity": section.mean,
        "contrast": section.contrast,
        "sharpness": section.sharpness,
        "foreground_area": foreground_area(section.thumbnails),
    }
    if training is not None and training.z is not None and section.z is not None:
        scores["slice_position"] = (section.z - training.z.quantile(0.5)).abs()
    if training is not None and len(training.thumbnails) > 1:
        scores["pca_reconstruction"] = pca_errors(training.thumbnails, section.thumbnails, seed=seed)
        scores["nearest_training_image"] = nearest_distances(training.thumbnails, section.thumbnails)
    return {name: value.to(torch.float64) for name, value in scores.items()}


def rank_scores(scores: Tensor, targets: Tensor) -> dict[str, float | None]:
    """Return ``image_auroc`` and ``image_ap``; None where one of the classes does not occur.

    Args:
        scores: (N,) real.
        targets: (N,) 0 or 1.
    """
    if len(targets.unique()) < 2:
        return {"image_auroc": None, "image_ap": None}
    return {"image_auroc": float(roc_auc(scores, targets)), "image_ap": float(average_precision(scores, targets))}


def _leading_directions(centered: Tensor, components: int) -> Tensor:
    """Return the leading right singular vectors (P, K) of (N, P), from the smaller of the two Gram matrices."""
    rows, columns = centered.shape
    gram = centered @ centered.T if rows <= columns else centered.T @ centered
    last = len(gram) - 1
    values, vectors = eigh(gram.numpy(), subset_by_index=[max(0, last + 1 - components), last])
    kept = torch.from_numpy(vectors[:, values > 1e-12 * max(values[-1], 0.0)])  # the others are rounding errors
    return F.normalize(centered.T @ kept, dim=0) if rows <= columns else kept


def _halve(thumbnails: Tensor) -> Tensor:
    return _HALF[thumbnails.ndim - 1](thumbnails[:, None], 2).flatten(1)
