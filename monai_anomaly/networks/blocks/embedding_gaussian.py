# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .gaussian_head import GaussianHead


class EmbeddingGaussian(GaussianHead):
    """One Gaussian of whole images: how far the mean feature vector of an image is from that of healthy ones.

    The embedding is z, the mean of the features x(p) over all places p. With the mean m and the covariance C of healthy
    embeddings and ``W^T W = C^-1``, the score is the Mahalanobis distance ``d = |W (z - m)|``. The map says which
    places make it: ``u^T W (x(p) - m)`` with the unit vector ``u = W (z - m) / d``, how far each place lies in the
    direction in which the whole image deviates. Its mean over the places is d; it is negative where a place pulls the
    image back.

    Differs from the paper: one Gaussian of the joined layers, where the paper adds up the distances of one for each.
    The map is ours, since the paper has a score only.

    Args:
        regularizer: added to the diagonal without ``shrinkage``, see :class:`GaussianHead`.
        shrinkage: "ledoit_wolf" (default), as in the paper, or None.

    Shapes:
        ``forward``: features (B, D, *G) to the map (B, 1, *G); ``scored``: to map and score (B, 1). D^2 float32 are
        held, during the fit as many float64 beside them, however many places there are.

    Raises:
        ValueError: when an argument is outside its range, or features do not have the channels that were fitted.
        RuntimeError: when the covariance is singular: with too few images, without shrinkage and regularizer.

    Reference:
        O. Rippel, P. Mertens, D. Merhof: "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for
        Anomaly Detection", ICPR 2020, Section III; K. Lee, K. Lee, H. Lee, J. Shin: "A Simple Unified Framework for
        Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, Eq. 2.

    Example:
        >>> import torch
        >>> head = EmbeddingGaussian()
        >>> head.fit_batch(torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
        >>> head.finish()
        >>> anomaly_map, score = head.scored(torch.ones(2, 3, 4, 4))
        >>> anomaly_map.shape, bool(torch.allclose(anomaly_map.mean((1, 2, 3)), score[:, 0]))
        (torch.Size([2, 1, 4, 4]), True)
    """

    def __init__(self, regularizer: float = 0.01, shrinkage: str | None = "ledoit_wolf") -> None:
        super().__init__(regularizer=regularizer, shrinkage=shrinkage)

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        super()._allocate(channels, ())

    def _fit(self, features: Tensor) -> None:
        super()._fit(_embedding(features))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, 1, *G) of features (B, D, *G)."""
        return self.scored(features)[0]

    def scored(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 1, *G) and score (B, 1) of features (B, D, *G)."""
        self._check_finished()
        embedding = _embedding(features)
        self._check_shape(embedding)
        whitening = self.whitening[0]
        whole = (embedding.float() - self.mean) @ whitening.T  # (B, d)
        places = whitening @ (features.float().flatten(2) - self.mean[:, None])  # (B, d, N)
        along = (F.normalize(whole, dim=1)[:, None] @ places).reshape(features.shape[0], 1, *features.shape[2:])
        return along, whole.norm(dim=1, keepdim=True)


def _embedding(features: Tensor) -> Tensor:
    """Mean over the places (B, D), in float64: its rounding does not depend on how the sum is divided."""
    return features.double().flatten(2).mean(dim=2)
