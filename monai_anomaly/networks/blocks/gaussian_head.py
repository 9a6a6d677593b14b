# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from monai_anomaly.functional import Moments, ledoit_wolf_share, merge_moments, moments_of

from .fitted_head import FittedHead

# How many covariances are factored at once: what is held beside them stays small.
_CHUNK = 64


class GaussianHead(FittedHead):
    """A Gaussian for each place, or one for whole images: the Mahalanobis distance to what is normal there.

    ``sqrt((x - m)^T C^-1 (x - m))`` with the mean m and the covariance C of healthy images (divided by n - 1), to which
    ``regularizer * I`` is added; with ``shrinkage="ledoit_wolf"``, C is instead the estimate of Ledoit and Wolf (2004)
    from the covariance divided by n. Moments are kept in float64 about the mean of what was seen.

    Kept is the inverse W of the Cholesky factor L (C = L L^T), float32, solved for once, in ``finish``: the distance is
    the length of W (x - m), one batched product for all places, which every runtime has.

    Args:
        num_features: how many of the D features are used, a random choice; 100 in the paper with ResNet-18 and 550 with
            WideResNet-50-2. All by default, and where there are not more.
        regularizer: added to the diagonal, >= 0; 0.01 in the paper.
        shrinkage: None, or "ledoit_wolf" for few images.
        seed: of the choice of features.

    Shapes:
        ``forward``: features (B, D, *G) to distances (B, 1, *G); for whole images (B, D) to (B, 1). N * d^2 float32
        are held for N places and d features, during the fit as many float64 beside them.

    Raises:
        ValueError: when an argument is outside its range, or features do not have the shape that was fitted.
        RuntimeError: when a covariance is singular: with too few images, without regularizer.

    Example:
        >>> head = GaussianHead()
        >>> healthy = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> head.fit_batch(healthy)
        >>> head.finish()
        >>> [round(value) for value in head(torch.tensor([[0.0, 0, 0], [0, 4, 3]]))[:, 0].tolist()]
        [0, 5]

    Reference:
        T. Defard, A. Setkov, A. Loesch, R. Audigier: "PaDiM: a Patch Distribution Modeling Framework for Anomaly
        Detection and Localization", ICPR 2020 workshops, Eqs. 1 and 2.
    """

    working = ("center", "scatter", "cubes", "fourths")
    chosen: Tensor
    is_chosen: Tensor
    mean: Tensor
    whitening: Tensor
    center: Tensor
    scatter: Tensor
    cubes: Tensor
    fourths: Tensor

    def __init__(
        self, num_features: int | None = None, regularizer: float = 0.01, shrinkage: str | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if num_features is not None and num_features < 1:
            raise ValueError(f"num_features must be positive or None, got {num_features}.")
        if regularizer < 0:
            raise ValueError(f"regularizer must not be negative, got {regularizer}.")
        if shrinkage not in (None, "ledoit_wolf"):
            raise ValueError(f"shrinkage must be None or 'ledoit_wolf', got {shrinkage!r}.")
        self.num_features, self.regularizer = num_features, regularizer
        self.shrinkage, self.seed = shrinkage, seed
        self.register_buffer("chosen", torch.empty(0, dtype=torch.long))  # (d,)
        self.register_buffer("is_chosen", torch.empty(0, dtype=torch.bool))  # (D,)
        self.register_buffer("mean", torch.empty(0))  # (d, *G)
        self.register_buffer("whitening", torch.empty(0))  # (N, d, d), lower triangular
        for name in self.working:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def extra_repr(self) -> str:
        """What distinguishes two of these heads."""
        return f"mean={tuple(self.mean.shape)}, regularizer={self.regularizer}, shrinkage={self.shrinkage!r}"

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        device = self.mean.device
        order = torch.randperm(channels, generator=torch.Generator().manual_seed(self.seed))
        self.chosen = order[: self.num_features].sort().values.to(device)
        self.is_chosen = torch.zeros(channels, dtype=torch.bool, device=device).index_fill(0, self.chosen, True)
        length = len(self.chosen)
        self.mean = torch.zeros(length, *grid, device=device)
        self.whitening = torch.zeros(self.mean[0].numel(), length, length, device=device)

    def _fit(self, features: Tensor) -> None:
        self._check_shape(features)
        vectors = features.index_select(1, self.chosen).reshape(len(features), len(self.chosen), -1)
        found = moments_of(vectors.permute(0, 2, 1), higher=self.shrinkage is not None)
        self._take(merge_moments(self._moments(), found) if int(self.num_images) else found)

    def _merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        for name in ("chosen", "is_chosen", "mean", "whitening"):
            setattr(self, name, states[0][name])
        fits = [Moments(state["num_images"], *(state[name] for name in self.working)) for state in states]
        self._take(functools.reduce(merge_moments, fits))

    def _moments(self) -> Moments:
        return Moments(self.num_images.clone(), self.center, self.scatter, self.cubes, self.fourths)

    def _take(self, moments: Moments) -> None:
        _, self.center, self.scatter, self.cubes, self.fourths = moments

    def _finish(self) -> None:
        if int(self.num_images) < 2:
            raise RuntimeError("a covariance needs two images at least, got one: call fit_batch with more.")
        self.mean.copy_(self.center.T.reshape(self.mean.shape))
        share, added, divisor = torch.zeros_like(self.center[:, 0]), self.regularizer, self.num_images - 1
        if self.shrinkage is not None:
            share, added, divisor = ledoit_wolf_share(self._moments()), 0.0, self.num_images
        identity = torch.eye(len(self.chosen), dtype=torch.float64, device=self.mean.device)
        for start in range(0, len(share), _CHUNK):
            part = slice(start, start + _CHUNK)
            covariance = self.scatter[part] / divisor
            trace = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)
            weight = share[part, None, None]
            covariance = (1 - weight) * covariance + (weight * trace[:, None, None] + added) * identity
            self.whitening[part] = _inverse_factor(covariance, identity).float()

    def forward(self, features: Tensor) -> Tensor:
        """Distances (B, 1, *G) of features (B, D, *G), or (B, 1) of (B, D)."""
        self._check_finished()
        self._check_shape(features)
        centered = features.float().index_select(1, self.chosen) - self.mean
        places = centered.flatten(2) if features.ndim > 2 else centered.unsqueeze(2)
        white = self.whitening @ places.permute(2, 1, 0)  # (N, d, B)
        return white.norm(dim=1).T.reshape(features.shape[0], 1, *features.shape[2:])

    def _check_shape(self, features: Tensor) -> None:
        expected = (self.is_chosen.shape[0], *self.mean.shape[1:])
        if tuple(features.shape[1:]) != expected:
            raise ValueError(f"features must be (B, D, *G) with {expected} after B, got {tuple(features.shape)}.")


def _inverse_factor(covariance: Tensor, identity: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        raise RuntimeError(
            "a covariance is singular: give more images than features, a regularizer above 0, or "
            "shrinkage='ledoit_wolf' with features that are not constant."
        )
    return torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
