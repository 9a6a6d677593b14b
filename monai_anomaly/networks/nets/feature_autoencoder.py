# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

from monai.networks.layers import Conv, Dropout, Norm
from torch import Tensor, nn

from ...functional.feature_grid import to_grid
from ..blocks.feature_learner import FeatureLearner
from ..blocks.outputs import FeatureOutput


class FeatureAutoencoder(FeatureLearner):
    """Structural feature autoencoder (FAE): a convolutional autoencoder of the features of a frozen network.

    Each channel is standardized by the mean and deviation that it has on the training images, so that the structural
    similarity has a scale: with it one loss serves networks whose features are small, large, or negative. The feature
    maps are brought to one grid and joined. Then four steps halve the grid, a convolution stands in the middle, and
    four double it again.

    Differs from the paper's code: that standardizes nothing; ``standardize=False`` does likewise.

    Args:
        extractor: from images (B, C, *S) to feature maps; its ``num_channels`` says how many channels each has. In the
            paper stem and first two stages of a ResNet-18.
        grid: places *G along each axis, 2 or 3 of them, divisible by 2 for each of ``channels``; (32, 32) in the paper.
        channels: of the maps on the way down; default (100, 150, 200, 300), as in the paper.
        dropout: share of channels left out after each step while training, in [0, 1); default 0.1, as in the paper.
        standardize: see above; default True.

    Raises:
        ValueError: when the grid cannot be halved that often.

    Reference:
        F. Meissen, J. Paetzold, G. Kaissis, D. Rueckert: "Unsupervised Anomaly Localization with Structural
        Feature-Autoencoders", BrainLes at MICCAI 2022.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import FeatureAutoencoder
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", weights="from_checkpoint")
        >>> output = FeatureAutoencoder(extractor, [16, 16], channels=[8, 8])(torch.zeros(2, 1, 64, 64))
        >>> [tuple(features.shape) for features in output.prediction]
        [(2, 232, 16, 16)]
    """

    def __init__(
        self,
        extractor: nn.Module,
        grid: Sequence[int],
        channels: Sequence[int] = (100, 150, 200, 300),
        dropout: float = 0.1,
        standardize: bool = True,
    ) -> None:
        super().__init__(extractor, len(grid), standardize)
        self.grid = list(grid)
        step = 2 ** len(channels)
        if not channels or any(places < 1 or places % step for places in self.grid):
            raise ValueError(
                f"grid must be divisible by {step} along each axis, since {len(channels)} steps halve it, got "
                f"{self.grid}: choose another grid, or other channels, one number a step"
            )
        axes, features = len(self.grid), sum(extractor.num_channels)  # type: ignore[arg-type]
        widths = [features, *channels]
        down, up = Conv[Conv.CONV, axes], Conv[Conv.CONVTRANS, axes]
        middle = down(channels[-1], channels[-1], 5, 1, 2, bias=False)
        self.encoder = nn.Sequential(*_steps(partial(down, kernel_size=5), widths, dropout, axes), middle)
        last = down(features, features, 1, bias=False)
        self.decoder = nn.Sequential(*_steps(partial(up, kernel_size=6), widths[::-1], dropout, axes), last)

    def learn(self, image: Tensor, features: list[Tensor]) -> FeatureOutput:
        """The joined feature maps (B, D, *G) of images, and what the autoencoder makes of them."""
        joined = to_grid(features, self.grid)
        return FeatureOutput([self.decoder(self.encoder(joined))], [joined])


def _steps(make: Callable[..., nn.Module], widths: Sequence[int], dropout: float, axes: int) -> Iterator[nn.Module]:
    """Convolutions of stride 2, each with what follows it."""
    for before, after in pairwise(widths):
        yield make(before, after, stride=2, padding=2, bias=False)
        yield Norm[Norm.BATCH, axes](after)
        yield nn.LeakyReLU()
        yield Dropout[Dropout.DROPOUT, axes](dropout)
