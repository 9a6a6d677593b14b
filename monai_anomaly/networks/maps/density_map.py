# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn

from ...functional.errors import enlarged
from ...functional.feature_grid import local_mean, to_grid
from ...functional.published_patches import published_patches
from ...utils import accept_only_whole_weights
from ..blocks.fitted_head import FittedHead
from .classifier_map import ScoredMapOutput

_HEAD = "head."
# Numbers of a vector in the published code of PatchCore.
_PUBLISHED_CHANNELS = 1024


class DensityOutput(NamedTuple):
    """An anomaly map (B, 1, *S), larger = more abnormal."""

    anomaly_map: Tensor


class DensityMap(nn.Module):
    """How far the features of an image are, place by place, from those that healthy images have.

    The feature maps of a frozen network are brought to one grid, a head that was fitted to healthy images says how far
    each place of it is from them, and the distances are enlarged linearly to the size of the image. Fitting needs no
    gradient: :meth:`fit_batch` for each batch, then :meth:`finish` (:class:`monai_anomaly.engines.FitTrainer`).

    Args:
        extractor: from images (B, C, *S) on [-1, 1] to a list of feature maps, such as
            :class:`monai_anomaly.networks.blocks.FeatureExtractor`.
        head: from features (B, D, *G) to distances (B, 1, *G); it has ``fit_batch``, ``merge`` and ``finish``.
        grid: places *G of the grid along each axis.
        unit_length: scale the vector of each map to length 1 before they are joined, see
            :func:`monai_anomaly.functional.to_grid`. Without it the large numbers of a shallow layer drown the small
            ones of a deep one wherever a head adds up squares; a Gaussian has no use for it.
        smoothing: places along each axis that distances are averaged over before they are enlarged, an odd number; 1:
            none. At the border the mean is of those that there are.
        blur: standard deviation, in pixels of the image, of a Gaussian that the enlarged map is blurred with, at the
            border with the outermost values going on; 0: none. PaDiM and PatchCore have 4.
        neighborhood: places of each feature map that it is averaged over before it is brought to the grid, an odd
            number, see :func:`monai_anomaly.functional.to_grid`; 3 in PatchCore; 1 (default): none.
        own_score: whether :meth:`predict` gives the head's score of whole images too, which is not made of the map
            (``scored`` of :class:`monai_anomaly.networks.blocks.MemoryBank`, ``EmbeddingGaussian``); default False.
        compat: None (default), or "patchcore" for the features of its published code
            (:func:`monai_anomaly.functional.published_patches`).

    Raises:
        ValueError: when ``smoothing`` or ``neighborhood`` is even or below 1, ``blur`` negative, ``grid`` has no place,
            ``compat`` is unknown or does not go with ``unit_length``, or the head has no score of its own.

    Reference:
        The shape is that of T. Defard, A. Setkov, A. Loesch, R. Audigier: "PaDiM: a Patch Distribution Modeling
        Framework for Anomaly Detection and Localization", ICPR Workshops 2021, Section III, and of N. Cohen, Y. Hoshen:
        "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020; the head makes it one or the other.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.blocks import PlaceMemory
        >>> from monai_anomaly.networks.maps import DensityMap
        >>> class Halves(torch.nn.Module):
        ...     def forward(self, image): return [torch.nn.functional.avg_pool2d(image, 2)]
        >>> network = DensityMap(Halves(), PlaceMemory(size=4, window=1), grid=[4, 4])
        >>> network.fit_batch(torch.rand(8, 3, 16, 16))
        >>> network.finish()
        >>> network(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        extractor: nn.Module,
        head: nn.Module,
        grid: Sequence[int],
        unit_length: bool = False,
        smoothing: int = 1,
        blur: float = 0.0,
        neighborhood: int = 1,
        own_score: bool = False,
        compat: str | None = None,
    ) -> None:
        super().__init__()
        for name, places in (("smoothing", smoothing), ("neighborhood", neighborhood)):
            if places < 1 or places % 2 == 0:
                raise ValueError(f"{name} must be an odd number of places, at least 1, got {places}.")
        if compat not in (None, "patchcore") or (compat and unit_length):
            given = f"{compat!r} and unit_length={unit_length}"
            raise ValueError(f"compat must be None, or 'patchcore' without unit_length, got {given}.")
        if own_score and not hasattr(head, "scored"):
            raise ValueError(
                f"own_score must be False for a {type(head).__name__}, which has no score of whole images: take a "
                "MemoryBank or an EmbeddingGaussian."
            )
        if blur < 0:
            raise ValueError(f"blur must be 0 or more pixels, got {blur}.")
        self.grid = list(grid)
        if not self.grid or min(self.grid) < 1:
            raise ValueError(f"grid must have at least one place along each axis, got {grid}.")
        self.register_load_state_dict_pre_hook(_make_room)
        accept_only_whole_weights(self)
        self.extractor = extractor
        self.head = head
        self.unit_length = unit_length
        self.smoothing, self.neighborhood = smoothing, neighborhood
        self.own_score, self.compat = own_score, compat
        if isinstance(head, FittedHead) and hasattr(extractor, "num_channels"):
            joined = sum(cast(Any, extractor).num_channels) if compat is None else _PUBLISHED_CHANNELS
            head.allocate(joined, self.grid)
        self.register_buffer("kernel", gaussian_1d(torch.tensor(float(blur))) if blur else None, persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """Features (B, D, *G) of images (B, C, *S) on the grid."""
        maps = self.extractor(image)
        if self.compat is not None:
            return published_patches(maps, self.grid, self.neighborhood, _PUBLISHED_CHANNELS)
        return to_grid(maps, self.grid, self.unit_length, self.neighborhood)

    @torch.no_grad()
    def fit_batch(self, image: Tensor) -> None:
        """Take in healthy images (B, C, *S)."""
        cast(Any, self.head).fit_batch(self.features(image))

    def merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Become one of what several processes have taken in.

        Args:
            states: their ``state_dict``, in the order of their ranks.
        """
        heads = [{k.removeprefix(_HEAD): v for k, v in state.items() if k.startswith(_HEAD)} for state in states]
        cast(Any, self.head).merge(heads)

    def finish(self) -> None:
        """End the fit; a second call changes nothing."""
        cast(Any, self.head).finish()

    @torch.no_grad()
    def predict(self, image: Tensor) -> DensityOutput | ScoredMapOutput:
        """Map of images (B, C, *S), with ``own_score`` the head's score too, by name.

        NaN, as the features of a network without weights, before the fit.
        """
        if isinstance(self.head, FittedHead) and not self.head._is_finished:
            unknown = torch.full_like(image[:, :1], torch.nan)
            return ScoredMapOutput(unknown, unknown.flatten(1)[:, :1]) if self.own_score else DensityOutput(unknown)
        features = self.features(image)
        if not self.own_score:
            return DensityOutput(self._to_image(self.head(features), image))
        distance, score = cast(Any, self.head).scored(features)
        return ScoredMapOutput(self._to_image(distance, image), score)

    def _to_image(self, distance: Tensor, image: Tensor) -> Tensor:
        """Distances (B, 1, *G) as a map (B, 1, *S)."""
        distance = enlarged(local_mean(distance, self.smoothing), image.shape[2:])
        if self.kernel is not None:
            distance = separable_filtering(distance, [cast(Tensor, self.kernel)] * (image.ndim - 2), mode="replicate")
        return distance

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def _make_room(module: DensityMap, state_dict: Mapping[str, Tensor], prefix: str, *others: Any) -> None:
    """What a head needs only while it is fitted is there in a checkpoint of that time, and has no size afterwards."""
    for name in getattr(module.head, "working", ()):
        given, own = state_dict.get(f"{prefix}{_HEAD}{name}"), getattr(module.head, name)
        if given is not None and given.shape != own.shape:
            setattr(module.head, name, torch.empty_like(given, device=own.device))
