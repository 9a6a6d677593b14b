# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from monai.networks.layers import Conv, Norm
from torch import Tensor, nn

from ..blocks.feature_learner import FeatureLearner, map_shapes
from ..blocks.outputs import FeatureOutput
from .wide_bottleneck import WideBottleneck

Stride = tuple[int, ...]


class ReverseDistillation(FeatureLearner):
    """A student that rebuilds the feature maps of a frozen network from a small embedding of them, the deepest first.

    Convolutions bring all maps to the size of the deepest one, where they are joined and, by residual blocks, halved
    once more to one embedding: what it has no room for is lost. Stages of residual blocks then rebuild the maps one
    after the other, each stage the next shallower map, enlarged by transposed convolutions. On the first three stages
    of a WideResNet-50-2 this is the network of the paper.

    Differs from the paper: networks of other families are mirrored by the same blocks, whatever their own are, and
    where their features may be negative (``signed``) a convolution of one place ends each rebuilt map, since residual
    blocks end in a ReLU.

    Args:
        extractor: from images (B, C, *S) to feature maps, from the shallowest to the deepest; its ``in_channels`` says
            how many channels an image has. Channels of maps must be divisible by 4.
        spatial_size: size *S of the images, from which the sizes of the maps follow, 2D or 3D.
        blocks: residual blocks for each rebuilt map, from the deepest on; default (3, 4, 6), as in the paper.
        signed: whether features may be negative, as those of EfficientNets and transformers, unlike those of ResNets;
            default False, as in the paper.

    Raises:
        ValueError: when the maps do not become smaller by whole factors, there is not one number of blocks for each, or
            their channels do not fit.

    Reference:
        H. Deng, X. Li: "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, Section 3.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import ReverseDistillation
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", weights="from_checkpoint")
        >>> output = ReverseDistillation(extractor, [64, 64], signed=True)(torch.zeros(2, 1, 64, 64))
        >>> [tuple(features.shape) for features in output.prediction]
        [(2, 40, 8, 8), (2, 80, 4, 4), (2, 112, 4, 4)]
    """

    def __init__(
        self,
        extractor: nn.Module,
        spatial_size: Sequence[int],
        blocks: Sequence[int] = (3, 4, 6),
        signed: bool = False,
    ) -> None:
        super().__init__(extractor, len(spatial_size))
        shapes = map_shapes(extractor, spatial_size)
        channels = [shape[0] for shape in shapes]
        _check(channels, blocks)
        strides = [_stride(shallow[1:], deep[1:]) for shallow, deep in pairwise(shapes)]
        axes, deepest = len(spatial_size), channels[-1]
        self.fusion = nn.ModuleList(
            nn.Sequential(
                *(_shrink(*step, axes) for step in zip(channels[i:], channels[i + 1 :], strides[i:], strict=False))
            )
            for i in range(len(channels))
        )
        half = (2,) * axes
        self.embedding = _stage(len(channels) * deepest, 2 * deepest, 3, half, axes)
        widths = [2 * deepest, *channels[::-1]]
        self.stages = nn.ModuleList(
            _stage(before, after, number, stride, axes, enlarge=True)
            for (before, after), number, stride in zip(pairwise(widths), blocks, [half, *strides[::-1]], strict=True)
        )
        last = [Conv[Conv.CONV, axes](width, width, 1) if signed else nn.Identity() for width in widths[1:]]
        self.last = nn.ModuleList(last)

    def learn(self, image: Tensor, features: list[Tensor]) -> FeatureOutput:
        """The feature maps of images, and what the student rebuilds of them."""
        joined = torch.cat([shrink(each) for shrink, each in zip(self.fusion, features, strict=True)], 1)
        rebuilt = self.embedding(joined)
        maps: list[Tensor] = []
        for stage, last, wanted in zip(self.stages, self.last, reversed(features), strict=True):
            rebuilt = _cropped(stage(rebuilt), wanted.shape[2:])
            maps.append(last(rebuilt))
        return FeatureOutput(maps[::-1], features)


class _EnlargingBottleneck(nn.Module):
    """Residual block whose inner convolution is transposed and enlarges by its stride."""

    def __init__(self, before: int, after: int, stride: Stride, axes: int) -> None:
        super().__init__()
        width = after // 2
        conv, up = Conv[Conv.CONV, axes], Conv[Conv.CONVTRANS, axes]
        norm = Norm[Norm.BATCH, axes]
        self.residual = nn.Sequential(
            conv(before, width, 1, bias=False),
            norm(width),
            nn.ReLU(),
            up(width, width, stride, stride, bias=False),
            norm(width),
            nn.ReLU(),
            conv(width, after, 1, bias=False),
            norm(after),
        )
        self.shortcut = nn.Sequential(up(before, after, stride, stride, bias=False), norm(after))

    def forward(self, features: Tensor) -> Tensor:
        """Enlarge features (B, C, *S)."""
        return torch.relu(self.residual(features) + self.shortcut(features))


def _stage(before: int, after: int, blocks: int, stride: Stride, axes: int, enlarge: bool = False) -> nn.Sequential:
    """Residual blocks, the first of which shrinks or enlarges by the stride."""
    if enlarge:
        first: nn.Module = _EnlargingBottleneck(before, after, stride, axes)
    else:
        shortcut = nn.Sequential(
            Conv[Conv.CONV, axes](before, after, 1, stride, bias=False), Norm[Norm.BATCH, axes](after)
        )
        first = WideBottleneck(before, after // 4, axes, cast(int, stride), shortcut)
    return nn.Sequential(first, *(WideBottleneck(after, after // 4, axes) for _ in range(blocks - 1)))


def _shrink(before: int, after: int, stride: Stride, axes: int) -> nn.Sequential:
    """From the size and channels of a map to those of the next deeper one."""
    conv = Conv[Conv.CONV, axes](before, after, 3, stride, 1, bias=False)
    return nn.Sequential(conv, Norm[Norm.BATCH, axes](after), nn.ReLU())


def _stride(shallow: Sequence[int], deep: Sequence[int]) -> Stride:
    """Factors by which a map is larger than the next deeper one."""
    stride = tuple(-(-a // b) for a, b in zip(shallow, deep, strict=True))
    if any(-(-a // s) != b for a, b, s in zip(shallow, deep, stride, strict=True)):
        raise ValueError(
            f"feature maps must become smaller by whole factors, from the shallowest to the deepest, got one of "
            f"{tuple(shallow)} places before one of {tuple(deep)}: choose other layers or another size of images"
        )
    return stride


def _cropped(features: Tensor, size: Sequence[int]) -> Tensor:
    """The first places along each axis: enlarging makes one too many where an odd number was halved."""
    return features[(slice(None), slice(None), *[slice(places) for places in size])]


def _check(channels: Sequence[int], blocks: Sequence[int]) -> None:
    if len(blocks) != len(channels) or min(blocks) < 1:
        raise ValueError(f"blocks must be {len(channels)} positive numbers, one for each map, got {list(blocks)}")
    if any(number % 4 for number in channels):
        raise ValueError(f"channels of feature maps must be divisible by 4, got {channels}: choose other layers")
