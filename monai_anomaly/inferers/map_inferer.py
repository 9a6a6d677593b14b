# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from ..functional.errors import l2_error
from ..functional.reduction import mean_score
from ..networks.maps.anomaly_map import ENSEMBLE_SCORES, EnsembleMap, MapOutput, ReconstructionMap
from ..networks.maps.classifier_map import ScoredMapOutput
from ..networks.maps.density_map import DensityOutput
from ..networks.maps.feature_map import FeatureMapOutput
from ..utils import Keys, plain_tensor, unwrap


class ReconstructionInferer(Inferer):
    """Scores images by how badly an autoencoder reconstructs them.

    Args:
        error: un-reduced error of (prediction, target); networks that predict a variance use the variance-weighted one.
        reduction: from a map (B, 1, *S) to scores (B, 1); the mean in D2UE, DDAD and MedIAnomaly.

    Reference:
        see :class:`monai_anomaly.networks.maps.ReconstructionMap`.

    Example:
        >>> import torch
        >>> from monai_anomaly.inferers import ReconstructionInferer
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> network = DenseAutoencoder(spatial_size=32, hidden_channels=8)
        >>> result = ReconstructionInferer()(torch.zeros(2, 1, 32, 32), network)
        >>> [(name, tuple(result[name].shape)) for name in sorted(result)]
        [('anomaly_map', (2, 1, 32, 32)), ('reconstruction', (2, 1, 32, 32)), ('score', (2, 1))]
    """

    def __init__(
        self,
        error: Callable[[Tensor, Tensor], Tensor] = l2_error,
        reduction: Callable[[Tensor], Tensor] = mean_score,
    ) -> None:
        super().__init__()
        self.error = error
        self.reduction = reduction

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Score images.

        Args:
            inputs: (B, C, *S).
            network: an autoencoder with named output fields, possibly wrapped for distributed training.
            args: not used; the interface of MONAI's inferers has them.
            kwargs: not used.

        Returns:
            ``anomaly_map`` (B, 1, *S), ``score`` (B, 1) and ``reconstruction`` (B, C, *S), float32, without gradient.
        """
        asked: Any = unwrap(network)
        return _predict(ReconstructionMap(asked, self.error), asked, inputs, self.reduction)


class EnsembleInferer(Inferer):
    """Scores images by the error or the disagreement of an ensemble of autoencoders.

    Args:
        score: ``"ens"``, ``"unc"`` or ``"dsu"``, see :class:`monai_anomaly.networks.maps.EnsembleMap`.
        reduction: from a map (B, 1, *S) to scores (B, 1); the mean in D2UE and DDAD.

    Raises:
        ValueError: when ``score`` is unknown.

    Example:
        >>> import torch
        >>> from monai_anomaly.inferers import EnsembleInferer
        >>> from monai_anomaly.networks.blocks import NetworkEnsemble
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> ensemble = NetworkEnsemble(lambda: DenseAutoencoder(spatial_size=32, hidden_channels=8), num_members=2)
        >>> EnsembleInferer(score="ens")(torch.zeros(2, 1, 32, 32), ensemble)["score"].shape
        torch.Size([2, 1])
    """

    def __init__(self, score: str = "dsu", reduction: Callable[[Tensor], Tensor] = mean_score) -> None:
        super().__init__()
        if score not in ENSEMBLE_SCORES:
            raise ValueError(f"score must be one of {ENSEMBLE_SCORES}, got {score!r}.")
        self.score = score
        self.reduction = reduction

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Score images, see :meth:`ReconstructionInferer.__call__`; ``network`` is an ensemble."""
        asked: Any = unwrap(network)
        return _predict(EnsembleMap(asked, self.score), asked, inputs, self.reduction)


class MapInferer(Inferer):
    """Scores images by a network that gives the map itself, such as DDAD's.

    Args:
        reduction: from a map (B, 1, *S) to scores (B, 1), where the network gives no score of its own; the mean in DDAD
            and AMAE. None: the network gives one.
    """

    def __init__(self, reduction: Callable[[Tensor], Tensor] | None = mean_score) -> None:
        super().__init__()
        self.reduction = reduction

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Score images, see :meth:`ReconstructionInferer.__call__`.

        Args:
            inputs: (B, C, *S).
            network: its ``predict`` returns named fields: ``anomaly_map``, and ``reconstruction`` or ``score`` where
                there are such.
            args: not used; the interface of MONAI's inferers has them.
            kwargs: not used.

        Raises:
            ValueError: when the network gives no score and there is no ``reduction``.
        """
        asked: Any = unwrap(network)
        return _predict(asked, asked, inputs, self.reduction)


class _Map(Protocol):
    """What is asked of a map network."""

    def predict(self, image: Tensor) -> MapOutput | ScoredMapOutput | DensityOutput | FeatureMapOutput:
        """Map (B, 1, *S) of images (B, C, *S), by name."""


def _predict(
    network: _Map, switched: nn.Module, image: Tensor, reduction: Callable[[Tensor], Tensor] | None
) -> dict[str, Tensor]:
    # evaluation mode, because batch statistics would make an image's score depend on its neighbors in the batch; of the
    # given network, because a map made around it is new and knows nothing of the mode to return to
    # and full precision, because the gradients of the dual-space uncertainty vanish in half precision
    with eval_mode(switched), torch.autocast(image.device.type, enabled=False):
        output = network.predict(plain_tensor(image).float())
        fields = {name: value.float() for name, value in output._asdict().items()}
        if Keys.SCORE in fields:
            return fields
        if reduction is None:
            raise ValueError(f"{type(network).__name__} gives no score of its own: give a reduction of its map.")
        return {Keys.SCORE: reduction(fields[Keys.MAP])} | fields
