# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import ignite.distributed as idist
import torch
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from torch import Tensor, nn

from ...utils import derive_seed
from ..blocks.coupling_flow import CouplingFlow
from ..blocks.feature_learner import FeatureLearner
from ..blocks.outputs import LikelihoodOutput

# share of its distance to a batch's largest value by which a peak falls
_FALL = 0.1


class FeatureFlow(FeatureLearner):
    """How likely the features of each place are among those of healthy images, by one normalizing flow a layer.

    ``l = (log N(z; 0, I) + log |det dz/dx|) / C`` for the vector x of C channels at a place, of which the flow makes z
    knowing where the place is: the condition is the sines and cosines of its coordinates, the first half of it of x,
    the second of y, with wavelengths up to 10,000 places (:func:`monai.networks.blocks.pos_embed_utils`). In a volume
    each of the three axes has a third; the length is rounded down to a multiple of twice the number of axes, in 2D 4.
    The flows have no parameter in common, so that one optimizer of all is the same as one for each.

    The map is made of densities relative to the largest one of each layer, which the paper takes of the test images.
    Here it is that of the training images, one number a layer in ``peak``: it rises to the largest value of a batch at
    once, and falls by a tenth of the distance where a batch has only smaller ones, since it must follow flows that
    still learn. What it says is how much each layer counts, nothing else.

    Differs from the paper: one step for all vectors of a batch instead of one for each 256 of them.

    Args:
        extractor: from images (B, C, *S) to feature maps; its ``num_channels`` says how many channels each has.
        axes: spatial axes of the images, 2 (default) or 3.
        blocks: of each flow; default 8, as in the paper.
        condition: length of the condition, at least twice the axes; default 128, as in the paper.
        clamp: see :class:`monai_anomaly.networks.blocks.CouplingFlow`; default 1.9, as in the published code.
        seed: of the orders of channels, which are part of the weights.
        standardize: whether each channel is brought to mean 0 and deviation 1 of the training images first, which
            makes a training shorter where features are far from that; the densities are those of the standardized
            features. Default False, as in the paper.
        recompute: see :class:`monai_anomaly.networks.blocks.CouplingFlow`.
        compat: ``"upd"`` does as the study of Lagogiannis et al., IEEE TMI 2023: one peak for all layers, that of a
            single batch, the last one of the training, and at least 0.

    Attributes:
        peak: (L,), the largest ``l`` of healthy images; 0 before a training.

    Raises:
        ValueError: when an argument is outside its range, or FrEIA is not installed.

    Reference:
        D. Gudovskiy, S. Ishizaka, K. Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
        Conditional Normalizing Flows", WACV 2022, Section 4.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import FeatureFlow
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", weights="from_checkpoint")
        >>> output = FeatureFlow(extractor, blocks=2).eval()(torch.zeros(2, 1, 64, 64))
        >>> [tuple(each.shape) for each in output.log_likelihood], output.peak.shape
        ([(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 4, 4)], torch.Size([3]))
    """

    peak: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        extractor: nn.Module,
        axes: int = 2,
        blocks: int = 8,
        condition: int = 128,
        clamp: float = 1.9,
        seed: int = 0,
        standardize: bool = False,
        recompute: bool = False,
        compat: str | None = None,
    ) -> None:
        if axes not in (2, 3):
            raise ValueError(f"axes must be 2 or 3, got {axes}")
        super().__init__(extractor, axes, standardize)
        if condition < 2 * axes:
            raise ValueError(f"condition must be at least {2 * axes}, twice the axes, got {condition}")
        if compat not in (None, "upd"):
            raise ValueError(f"compat must be None or 'upd', got {compat!r}")
        self.compat = compat
        channels = cast(Sequence[int], extractor.num_channels)
        self.axes = axes
        self.length = condition - condition % (2 * axes)
        self.flows = nn.ModuleList(
            CouplingFlow(number, self.length, blocks, clamp, derive_seed(seed, layer), recompute)
            for layer, number in enumerate(channels)
        )
        self.register_buffer("peak", torch.zeros(len(channels)))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def extra_repr(self) -> str:
        """What distinguishes two of these networks."""
        return f"compat={self.compat!r}"

    def learn(self, image: Tensor, features: list[Tensor]) -> LikelihoodOutput:
        """The log-likelihoods of feature maps; the images are not asked."""
        likelihood = [self._likelihood(layer, each) for layer, each in enumerate(features)]
        if self.training:
            self._observe(torch.stack([each.detach().max() for each in likelihood]))
        return LikelihoodOutput(likelihood, self.peak.clone())  # of this moment: the next batch changes the buffer

    def _likelihood(self, layer: int, features: Tensor) -> Tensor:
        """Log-likelihood (B, 1, *S) of features (B, C, *S), divided by C."""
        number, channels = features.shape[:2]
        size = [int(places) for places in features.shape[2:]]
        code = build_sincos_position_embedding(size, self.length, self.axes).data[0].to(features)
        vectors = features.flatten(2).transpose(1, 2).reshape(-1, channels)
        # a sum, not a repetition: an export knows how many images there are of the features alone
        condition = (features.new_zeros(number, 1, 1) + code).flatten(0, 1)
        latent, log_det = self.flows[layer](vectors, condition)
        density = log_det - latent.square().sum(1) / 2 - channels * math.log(2 * math.pi) / 2
        return (density / channels).reshape(number, 1, *size)

    @torch.no_grad()
    def _observe(self, found: Tensor) -> None:
        """Take in the largest values (L,) of a batch, of all processes together."""
        found = torch.as_tensor(idist.all_reduce(found, "MAX"))
        if self.compat == "upd":
            self.peak.copy_(found.max().clamp(min=0).expand_as(self.peak))
        else:
            fallen = torch.maximum(found, torch.lerp(self.peak, found, _FALL))
            self.peak.copy_(torch.where(self.num_batches_tracked == 0, found, fallen))
        self.num_batches_tracked += 1
