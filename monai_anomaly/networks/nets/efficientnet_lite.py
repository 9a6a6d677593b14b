# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ...utils import accept_only_whole_weights

# kernel, stride, expansion, output channels and repetitions of each stage, before scaling
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280  # channels, the same in all sizes
_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # width and depth


class EfficientNetLite(nn.Module):
    """Image classifier of inverted residual blocks without squeeze-and-excitation (EfficientNet-Lite 0, 1 or 2).

    As published for TensorFlow: ReLU6, a constant of 1e-3 in batch normalization, stem and head of the same width in
    all sizes, first and last stage not repeated, and padding as TensorFlow's "SAME", which follows the size of the
    image, so that at stride 2 an even size gets its odd pixel of padding at the far end.

    Args:
        scale: 0 (default), 1 or 2: 4.65, 5.42 or 6.09 million parameters, 16, 21 or 21 blocks.
        num_classes: default 1000.
        dropout: of the pooled features while training; published 0.2, and 0.3 for size 2. None (default): as published.

    Raises:
        ValueError: when there is no such size.

    Reference:
        M. Tan, Q. Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, Table 1
        and Eq. 3; the Lite networks are published with its TensorFlow code (``efficientnet/lite``), without a paper.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import EfficientNetLite
        >>> network = EfficientNetLite(scale=0).eval()
        >>> network(torch.zeros(1, 3, 64, 64)).shape, len(network.blocks)
        (torch.Size([1, 1000]), 16)
    """

    def __init__(self, scale: int = 0, num_classes: int = 1000, dropout: float | None = None) -> None:
        super().__init__()
        if scale not in _SCALES:
            raise ValueError(f"scale must be one of {', '.join(map(str, _SCALES))}, got {scale!r}")
        width, depth = _SCALES[scale]
        self.stem = _Unit(3, _STEM, 3, stride=2)
        blocks, channels = [], _STEM
        for number, (kernel, stride, expansion, planned, repeats) in enumerate(_STAGES):
            scaled = _scaled_channels(planned, width)
            fixed = number in (0, len(_STAGES) - 1)
            for repeat in range(repeats if fixed else math.ceil(repeats * depth)):
                blocks.append(_Block(channels, scaled, kernel, 1 if repeat else stride, expansion))
                channels = scaled
        self.blocks = nn.Sequential(*blocks)
        self.head = _Unit(channels, _HEAD, 1)
        self.dropout = nn.Dropout((0.3 if scale == 2 else 0.2) if dropout is None else dropout)
        self.classifier = nn.Linear(_HEAD, num_classes)
        accept_only_whole_weights(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, 3, H, W) in [0, 255], from which 127 is taken and divided by 128."""
        features = self.head(self.blocks(self.stem(image)))
        logits: Tensor = self.classifier(self.dropout(features.mean((2, 3))))
        return logits


class SamePadConv2d(nn.Conv2d):
    """Convolution without bias that pads as TensorFlow's "SAME" does: the output has ceil(size / stride) pixels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd; at stride 2 at least 3.
        stride: 1 or 2.
        groups: of channels, default 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        if self.stride[0] == 1:
            return super().forward(input)
        padding: list[int] = []
        for axis in (-1, -2):
            both = self.kernel_size[axis] - 2 + input.shape[axis] % 2
            padding += [both // 2, both - both // 2]
        return super().forward(F.pad(input, padding))


class _Unit(nn.Sequential):
    """Convolution, batch normalization and, unless it is the last of a block, ReLU6."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = SamePadConv2d(in_channels, out_channels, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        if active:
            self.act = nn.ReLU6()


class _Block(nn.Module):
    """Inverted residual block: expand, filter each channel by itself, project; the input is added where shapes agree.

    Reference:
        M. Sandler et al.: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, Table 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = _Unit(in_channels, inner, 1) if expansion != 1 else nn.Identity()
        self.depthwise = _Unit(inner, inner, kernel, stride, groups=inner)
        self.project = _Unit(inner, out_channels, 1, active=False)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.project(self.depthwise(self.expand(features)))
        return features + result if self.residual else result


def _scaled_channels(channels: int, width: float) -> int:
    """Channels times the width, to the nearest multiple of 8, but never less than nine tenths of it."""
    if width == 1:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
