# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn

from ...functional.errors import enlarged, feature_error
from ...functional.feature_errors import direction_error, feature_ssim_error, value_error
from ...utils import accept_only_whole_weights
from ..blocks.outputs import FeatureOutput
from .classifier_map import ScoredMapOutput

FeatureRule = Callable[[Any, list[int]], Tensor]  # of what the network returns, and the size of the image


class FeatureMapOutput(NamedTuple):
    """An anomaly map (B, 1, *S), larger = more abnormal."""

    anomaly_map: Tensor


class FeatureMap(nn.Module):
    """How badly a network that has learned the features of healthy images meets those of an image, place by place.

    Args:
        network: returns a :class:`monai_anomaly.networks.blocks.FeatureOutput` of images, or another named tuple that
            the rule takes.
        rule: from that and the size *S of the image to the map (B, 1, *S): :func:`direction_map` (default),
            :func:`similarity_map` or :func:`likelihood_map`.
        blur: deviation, in pixels of the image, of a Gaussian that the map is blurred with, at the border with the
            outermost values going on; 0 (default): none.
        score_rule: from what the network returned to scores (B, 1), where a score is not made of the map, such as
            :func:`distillation_score`; default None.

    Raises:
        ValueError: when ``blur`` is negative.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.maps import FeatureMap, similarity_map
        >>> from monai_anomaly.networks.nets import FeatureAutoencoder
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", weights="from_checkpoint")
        >>> network = FeatureMap(FeatureAutoencoder(extractor, [8, 8], channels=[8]), similarity_map).eval()
        >>> network(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        network: nn.Module,
        rule: FeatureRule | None = None,
        blur: float = 0.0,
        score_rule: Callable[[FeatureOutput], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if blur < 0:
            raise ValueError(f"blur must be 0 or more pixels, got {blur}.")
        accept_only_whole_weights(self)
        self.network = network
        self.rule = direction_map if rule is None else rule
        self.score_rule = score_rule
        self.kernel: Tensor | None
        self.register_buffer("kernel", gaussian_1d(torch.tensor(float(blur))) if blur else None, persistent=False)

    @torch.no_grad()
    def predict(self, image: Tensor) -> FeatureMapOutput | ScoredMapOutput:
        """Map of images (B, C, *S), and their score where it is not made of the map, by names."""
        output = self.network(image)
        anomaly_map = self.rule(output, list(image.shape[2:]))
        if self.kernel is not None:
            anomaly_map = separable_filtering(anomaly_map, [self.kernel] * (image.ndim - 2), mode="replicate")
        if self.score_rule is None:
            return FeatureMapOutput(anomaly_map)
        return ScoredMapOutput(anomaly_map, self.score_rule(output))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def similarity_map(output: FeatureOutput, size: list[int], win_size: int = 5, compat: str | None = None) -> Tensor:
    """One minus the structural similarity of features, averaged over channels and enlarged linearly, (B, 1, *S).

    Args:
        output: what a feature autoencoder returned, with one joined map.
        size: of the image, *S.
        win_size: width of the Gaussian window in places.
        compat: see :func:`monai_anomaly.functional.feature_ssim_error`.
    """
    (made,), (wanted,) = output
    error = feature_ssim_error(made, wanted, win_size=win_size, compat=compat)
    return enlarged(error.mean(1, keepdim=True), size)


def direction_map(output: FeatureOutput, size: list[int]) -> Tensor:
    """One minus the cosine similarity of features at each place, averaged over the layers, (B, 1, *S).

    Reverse distillation adds the layers up, which is the same but for a factor.

    Args:
        output: feature maps of several layers, made and wanted.
        size: of the image, *S, to which each layer is enlarged linearly.
    """
    return feature_error(output.prediction, output.target, size)


def distillation_score(output: FeatureOutput, value_weight: float = 0.01, compat: str | None = None) -> Tensor:
    """The loss of multiresolution knowledge distillation as the score of each image, (B, 1).

    Args:
        output: what a student returned.
        value_weight: of the squared differences, see :class:`monai_anomaly.losses.FeatureDirectionLoss`.
        compat: ``"mkd"`` counts the last three layers alone, as the authors' code does although it trains with four.

    Raises:
        ValueError: when ``compat`` is unknown.

    Reference:
        M. Salehi, N. Sadjadi, S. Baselizadeh, M. H. Rohban, H. R. Rabiee: "Multiresolution Knowledge Distillation for
        Anomaly Detection", CVPR 2021, Eq. 3.
    """
    if compat not in (None, "mkd"):
        raise ValueError(f"compat must be None or 'mkd', got {compat!r}.")
    error = direction_error(*output, whole=True) + value_weight * value_error(*output)
    return (error[:, -3:] if compat == "mkd" else error).sum(1, keepdim=True)
