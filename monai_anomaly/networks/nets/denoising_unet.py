# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Pool
from torch import Tensor, nn

from .unet_restorer import RestorerOutput


class StandardizedConvolution(nn.Module):
    """A convolution whose filters have mean 0 and standard deviation 1 (weight standardization), with a bias.

    Each filter w, over its input channels and all its places, becomes ``(w - mean w) / (std w + 1e-5)`` with the
    unbiased deviation, before every use. The image is extended by reflection, so that it keeps its size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input, B x ``in_channels`` x S.
        out_channels: channels of the output.

    Reference:
        S. Qiao, H. Wang, C. Liu, W. Shen, A. Yuille: "Micro-Batch Training with Batch-Channel Normalization and Weight
        Standardization", 2019.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        filters = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=3)
        self.weight = filters.weight
        self.bias = filters.bias
        self.border = [1] * (2 * spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, ``in_channels``, *S), every axis at least 2 long."""
        flat = self.weight.flatten(1)
        centered = flat - flat.mean(1, keepdim=True)
        weight = (centered / (flat.std(1, keepdim=True) + 1e-5)).reshape(self.weight.shape)
        x = F.pad(x, self.border, mode="reflect")
        return F.conv2d(x, weight, self.bias) if x.ndim == 4 else F.conv3d(x, weight, self.bias)


class DenoisingUNet(nn.Module):
    """The U-Net of the denoising autoencoder: from a noisy image to the image without noise.

    Each level has two standardized convolutions, each followed by Swish and **then** by group normalization. Levels are
    joined by mean pooling on the way down, and by transposed convolutions of width and stride 2 on the way up, after
    which the level's own output from the way down is appended. The last layer is a convolution of width 1. With the
    defaults and three channels in 2D it has 7.70 million parameters, as published.

    Args:
        spatial_dims: 2 or 3; 2 in the paper.
        in_channels: channels C of an image; 4 sequences of MRI in the paper.
        channels: channels of each level, paper's default (64, 128, 256, 512).

    Raises:
        ValueError: when ``spatial_dims`` is not 2 or 3 or a number of channels not positive.

    Reference:
        A. Kascenas, N. Pugeault, A. Q. O'Neil: "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain
        MRI", MIDL 2022, and the authors' program for what the paper leaves open.
    """

    def __init__(
        self, spatial_dims: int = 2, in_channels: int = 1, channels: Sequence[int] = (64, 128, 256, 512)
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}.")
        if len(channels) == 0 or min(in_channels, *channels) < 1:
            raise ValueError(f"in_channels and channels must be positive, got {in_channels!r} and {tuple(channels)!r}.")
        before = [in_channels, *channels[:-1]]
        pairs = list(zip(channels[1:], channels[:-1], strict=True))[::-1]  # coarse to fine, on the way up
        self.down = nn.ModuleList(_level(spatial_dims, a, b) for a, b in zip(before, channels, strict=True))
        self.pool = Pool[Pool.AVG, spatial_dims](2)
        enlarge = Conv[Conv.CONVTRANS, spatial_dims]
        self.enlarge = nn.ModuleList(enlarge(coarse, fine, kernel_size=2, stride=2) for coarse, fine in pairs)
        self.up = nn.ModuleList(_level(spatial_dims, 2 * fine, fine) for _, fine in pairs)
        self.last = Conv[Conv.CONV, spatial_dims](channels[0], in_channels, kernel_size=1)
        self.divisor = 2 ** (len(channels) - 1)

    def forward(self, image: Tensor) -> RestorerOutput:
        """The image without noise.

        Args:
            image: (B, C, *S), each axis divisible by 2 for each level but the first, and at least 2 at the coarsest.

        Raises:
            ValueError: when the size does not fit.
        """
        size = image.shape[2:]
        if not torch.jit.is_tracing():
            for length in size:
                if length % self.divisor != 0 or length < 2 * self.divisor:
                    raise ValueError(f"each axis must be a multiple of {self.divisor}, twice at least, got {size}")
        x, kept = image, [image]  # the first only gives the list its type
        for number, level in enumerate(self.down):
            x = level(x if number == 0 else self.pool(x))
            kept.append(x)
        kept.pop()
        for enlarge, level in zip(self.enlarge, self.up):  # noqa: B905 TorchScript knows no strict
            x = level(torch.cat([enlarge(x), kept.pop()], 1))
        return RestorerOutput(self.last(x))


def _level(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Two convolutions; the activation comes before the normalization."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            StandardizedConvolution(spatial_dims, channels, out_channels),
            nn.SiLU(),
            nn.GroupNorm(middle_divisor(out_channels), out_channels),
        ]
    return nn.Sequential(*layers)


def middle_divisor(number: int) -> int:
    """The divisor in the middle of all, of two the larger: 8 of 64, 16 of 128 and of 256, 32 of 512."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return divisors[len(divisors) // 2]
