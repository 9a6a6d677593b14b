# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ZeroShortcut(nn.Module):
    """Shortcut of a residual block without parameters: every ``stride``-th place, new channels filled with zeros.

    It is shortcut "A" of MONAI's ``ResNet`` as a module, which can be traced and can be given another stride.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, not fewer.
        stride: default 1.
        spatial_dims: 1, 2 or 3 (default).

    Reference:
        K. He et al.: "Deep Residual Learning for Image Recognition", CVPR 2016, Section 3.3, option (A).

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import ZeroShortcut
        >>> ZeroShortcut(2, 4, stride=2)(torch.ones(1, 2, 8, 8, 8)).shape
        torch.Size([1, 4, 4, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, spatial_dims: int = 3) -> None:
        super().__init__()
        self.added = out_channels - in_channels
        self.stride = stride
        self.axes = spatial_dims

    def forward(self, features: Tensor) -> Tensor:
        """Shorten (B, C, *S) to (B, out_channels, *S / stride)."""
        places = features[(slice(None), slice(None), *[slice(None, None, self.stride)] * self.axes)]
        return F.pad(places, [0, 0] * self.axes + [0, self.added])
