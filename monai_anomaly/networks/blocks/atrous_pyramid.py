# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class AtrousPyramid(nn.Module):
    """Looks at features from several distances at once and joins what it sees (atrous spatial pyramid pooling).

    A convolution of one place, one of three places for each dilation, and one of the mean over all places, each to
    ``out_channels`` with batch normalization and ReLU; a convolution of one place joins them.

    Args:
        in_channels: of the features.
        out_channels: of each branch and of what they are joined to.
        dilations: places between the three of a convolution; default (6, 12, 18), as in the paper.
        spatial_dims: axes of the features, 2 (default) or 3.

    Raises:
        ValueError: when there is no dilation, or one is below 1.

    Reference:
        L.-C. Chen, G. Papandreou, F. Schroff, H. Adam: "Rethinking Atrous Convolution for Semantic Image Segmentation",
        2017, Section 3.3.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.blocks import AtrousPyramid
        >>> AtrousPyramid(8, 4)(torch.zeros(2, 8, 16, 16)).shape
        torch.Size([2, 4, 16, 16])
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilations: Sequence[int] = (6, 12, 18), spatial_dims: int = 2
    ) -> None:
        super().__init__()
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations must be one or more numbers of 1 or more, got {list(dilations)}")

        def unit(before: int, kernel: int, dilation: int = 1) -> Convolution:
            return Convolution(
                spatial_dims,
                before,
                out_channels,
                kernel_size=kernel,
                dilation=dilation,
                act=("relu", {"inplace": True}),
                norm="batch",
                bias=False,
            )

        self.branches = nn.ModuleList([unit(in_channels, 1), *(unit(in_channels, 3, places) for places in dilations)])
        self.whole = unit(in_channels, 1)
        self.joined = unit((len(dilations) + 2) * out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, out_channels, *S) of features (B, in_channels, *S)."""
        seen = [branch(features) for branch in self.branches]
        mean = features.mean(list(range(2, features.ndim)), keepdim=True)
        seen.append(self.whole(mean).expand_as(seen[0]))
        joined: Tensor = self.joined(torch.cat(seen, 1))
        return joined
