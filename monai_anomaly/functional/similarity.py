# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How alike two sets of features of the same samples are: the six columns of D2UE Table 3.

Every function takes features ``p`` (B, ...) and ``q`` (B, ...) of the same B samples and returns a scalar that grows
with their likeness, so that a learner is pushed away from another one by minimizing it. The exact form of the
per-sample measures is not printed in the paper; the choice made here is said in each docstring.

Reference:
    Y. Gu, Y. Lin, K.-T. Cheng, H. Chen: "Revisiting Deep Ensemble Uncertainty for Enhanced Medical Anomaly Detection",
    MICCAI 2024, Eqs. 1-3 and Table 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

# below this squared norm features count as constant over the batch: nothing is shared with anything
_SMALLEST = torch.finfo(torch.float32).tiny


def _rows(features: Tensor, name: str) -> Tensor:
    """Flatten (B, ...) to (B, D) in at least float32, since half precision cannot hold sums of squares."""
    if features.ndim < 2:
        raise ValueError(f"{name} must be (B, ...) with at least one feature axis, got shape {tuple(features.shape)}.")
    rows = features.flatten(1)
    return rows if rows.dtype == torch.float64 else rows.float()


def _paired_rows(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    if len(p) != len(q):
        raise ValueError(f"p and q must describe the same samples, got {len(p)} and {len(q)} rows.")
    return _rows(p, "p"), _rows(q, "q")


def _paired_vectors(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of equal length, which the per-sample measures need (CKA does not)."""
    p, q = _paired_rows(p, q)
    if p.shape != q.shape:
        raise ValueError(f"p and q must have the same number of features, got {p.shape[1]} and {q.shape[1]}.")
    return p, q


def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 - the paper's names
    """Hilbert-Schmidt independence criterion of two Gram matrices (biased estimator), Eq. 3.

    ``tr(K H L H) / (B - 1)^2`` with the centering matrix ``H = I - 11^T / B``. Differs from the paper's wording: its
    "r" is called the rank of the matrices there, but it is the number of samples B (Gretton et al., NeurIPS 2007).

    Args:
        k: Gram matrix (B, B) of the first features, symmetric.
        l: Gram matrix (B, B) of the second features, symmetric.

    Returns:
        Scalar >= 0 for positive semi-definite inputs.

    Raises:
        ValueError: when the matrices are not square, differ in size or hold fewer than two samples.
    """
    if k.ndim != 2 or k.shape[0] != k.shape[1] or k.shape != l.shape or len(k) < 2:
        raise ValueError(f"k and l must both be (B, B) with B >= 2, got {tuple(k.shape)} and {tuple(l.shape)}.")
    return (_center_gram(k) * _center_gram(l)).sum() / (len(k) - 1) ** 2


def _center_gram(gram: Tensor) -> Tensor:
    """``H G H`` without building H."""
    gram = gram - gram.mean(0, keepdim=True)
    return gram - gram.mean(1, keepdim=True)


def cka(p: Tensor, q: Tensor) -> Tensor:
    """Linear centered kernel alignment of two feature sets, Eq. 2.

    ``HSIC(PP^T, QQ^T) / sqrt(HSIC(PP^T, PP^T) HSIC(QQ^T, QQ^T))``. Invariant to isotropic scaling and to orthogonal
    transformation of either argument. Computed from B x B Gram matrices or, when there are fewer features than samples,
    from the D x D cross-covariances, which is the same number by ``||X^T Y||_F^2 = tr(XX^T YY^T)``.

    The estimator is biased: independent isotropic Gaussian features have CKA near D / (B - 1 + D), not 0.

    Args:
        p: features (B, ...), at least two samples.
        q: features (B, ...) of the same samples; the number of features may differ from ``p``.

    Returns:
        Scalar in [0, 1]; 0 when one side is constant over the batch.

    Raises:
        ValueError: when the numbers of samples differ or there are fewer than two.

    Example:
        >>> import torch
        >>> from monai_anomaly.functional import cka
        >>> features = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
        >>> round(float(cka(features, 2 * features)), 4)
        1.0
    """
    p, q = _paired_rows(p, q)
    if len(p) < 2:
        raise ValueError(f"cka needs at least two samples, got {len(p)}.")
    p, q = _standardize(p), _standardize(q)
    samples, p_size, q_size = len(p), p.shape[1], q.shape[1]
    # multiplications: products of feature columns against products of sample rows
    if p_size * q_size + p_size**2 + q_size**2 < samples * (p_size + q_size):
        shared, own_p, own_q = p.T @ q, p.T @ p, q.T @ q
        alignment = shared.square().sum()
    else:
        own_p, own_q = p @ p.T, q @ q.T
        alignment = (own_p * own_q).sum()
    return alignment / (own_p.square().sum() * own_q.square().sum()).clamp_min(_SMALLEST).sqrt()


def _standardize(rows: Tensor) -> Tensor:
    """Center over the batch and divide by the Frobenius norm, which makes CKA exact at any scale of the features."""
    # the first row is taken off first, so that constant features become 0 and not the rounding error of their mean
    rows = rows - rows[:1].detach()
    rows = rows - rows.mean(0, keepdim=True)
    # two steps, because the square of a very small or large feature leaves the range of float32
    rows = rows / rows.detach().abs().amax().clamp_min(_SMALLEST)
    return rows / rows.square().sum().clamp_min(_SMALLEST).sqrt()


def no_similarity(p: Tensor, q: Tensor) -> Tensor:
    """Zero: learners differ by their initial weights only (Table 3, "no constraint").

    Args:
        p: features (B, ...).
        q: features (B, ...).
    """
    p, q = _paired_rows(p, q)
    return p.new_zeros(())


def euclidean_similarity(p: Tensor, q: Tensor) -> Tensor:
    """Mean over samples of ``exp(-||p_b - q_b||_2)`` (Table 3, Euclidean), invariant to neither scaling nor rotation.

    Args:
        p: features (B, ...).
        q: features of the same shape.

    Returns:
        Scalar in (0, 1].
    """
    p, q = _paired_vectors(p, q)
    return torch.exp(-torch.linalg.vector_norm(p - q, dim=1)).mean()


def manhattan_similarity(p: Tensor, q: Tensor) -> Tensor:
    """Mean over samples of ``exp(-||p_b - q_b||_1)`` (Table 3, Manhattan), invariant to neither scaling nor rotation.

    Args:
        p: features (B, ...).
        q: features of the same shape.

    Returns:
        Scalar in (0, 1].
    """
    p, q = _paired_vectors(p, q)
    return torch.exp(-(p - q).abs().sum(1)).mean()


def cosine_similarity(p: Tensor, q: Tensor) -> Tensor:
    """Mean over samples of the cosine of the angle between ``p_b`` and ``q_b`` (Table 3), invariant to scaling.

    The sign is kept, so the smallest value is reached by opposite features, not by orthogonal ones.

    Args:
        p: features (B, ...).
        q: features of the same shape.

    Returns:
        Scalar in [-1, 1].
    """
    p, q = _paired_vectors(p, q)
    return torch.nn.functional.cosine_similarity(p, q, dim=1).mean()


def pearson_similarity(p: Tensor, q: Tensor) -> Tensor:
    """Mean over samples of the correlation of ``p_b`` and ``q_b`` over their features (Table 3), invariant to scaling.

    Args:
        p: features (B, ...).
        q: features of the same shape.

    Returns:
        Scalar in [-1, 1].
    """
    p, q = _paired_vectors(p, q)
    return cosine_similarity(p - p.mean(1, keepdim=True), q - q.mean(1, keepdim=True))
