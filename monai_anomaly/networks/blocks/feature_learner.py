# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from monai.networks.layers import Norm
from torch import Tensor, nn

from ...utils import accept_only_whole_weights, accept_weights_of_wrapper
from .outputs import FeatureOutput, LikelihoodOutput


class FeatureLearner(nn.Module):
    """A network that learns what a frozen one makes of healthy images.

    The features of an image never change while the frozen network does not, so they may be made once and given with the
    image (:class:`monai_anomaly.data.EncodedDataset`).

    Args:
        extractor: from images (B, C, *S) to a list of feature maps, such as :class:`FeatureExtractor`; its
            ``num_channels`` says how many channels each has.
        axes: spatial axes of the images, 2 or 3.
        standardize: whether each channel is brought to mean 0 and deviation 1, which batch normalization without
            parameters collects: while training, of the batch; then the mean over all batches of training images (with
            several processes, those of the first) of their means and variances, so what differs between batches is
            left out; default False.
    """

    def __init__(self, extractor: nn.Module, axes: int, standardize: bool = False) -> None:
        super().__init__()
        accept_weights_of_wrapper(self, "network.")  # the name of a network in the map around it
        accept_only_whole_weights(self)
        self.extractor = extractor
        norm = Norm[Norm.BATCH, axes]
        channels = cast(Sequence[int], extractor.num_channels) if standardize else []
        # without momentum: the mean over all batches
        self.standardize = nn.ModuleList(norm(number, affine=False, momentum=None) for number in channels)

    @property
    def frozen(self) -> bool:
        """Whether the features of an image stay as they are: not where batch statistics adapt."""
        return getattr(self.extractor, "compat", None) is None

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps (B, C_i, *S_i) of images (B, C, *S)."""
        return cast(list[Tensor], self.extractor(image))

    def forward(self, image: Tensor, features: Sequence[Tensor] | None = None) -> FeatureOutput | LikelihoodOutput:
        """What is learned, beside what is to be learned.

        Args:
            image: (B, C, *S), in [-1, 1].
            features: feature maps of the image where they were made before; None: they are made here.
        """
        maps = self.features(image) if features is None else list(features)
        if self.standardize:
            maps = [norm(each) for norm, each in zip(self.standardize, maps, strict=True)]
        return self.learn(image, maps)

    @abstractmethod
    def learn(self, image: Tensor, features: list[Tensor]) -> FeatureOutput | LikelihoodOutput:
        """What the network makes of images (B, C, *S) or of their feature maps, and what it should make."""


@torch.no_grad()
def map_shapes(extractor: nn.Module, spatial_size: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes (C_i, *S_i) of the feature maps of an image of that size; the extractor has ``in_channels``."""
    weight = next(extractor.parameters())
    channels = cast(int, extractor.in_channels)
    image = torch.zeros(1, channels, *spatial_size, dtype=weight.dtype, device=weight.device)
    return [tuple(features.shape[1:]) for features in extractor(image)]
