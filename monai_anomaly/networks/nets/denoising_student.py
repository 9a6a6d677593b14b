# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Norm, Pool
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn

from ...functional.errors import enlarged
from ...utils import accept_only_whole_weights, accept_weights_of_wrapper
from ..blocks.atrous_pyramid import AtrousPyramid
from ..blocks.outputs import DenoisingOutput

STUDENT, HEAD = 0, 1  # stages of a training


class DenoisingStudent(nn.Module):
    """A student that makes of a corrupted image the features of the clean one, and a head that segments where it fails.

    The student is an encoder, a ResNet of two residual blocks a stage, and a decoder of as many, which starts half as
    large as the deepest map and is enlarged linearly from map to map, with nothing passed beside it. The head gets, for
    each map, the product of the vectors of teacher and student at each place, both of length 1, all maps enlarged to
    the size of the first: two residual blocks, an atrous pyramid, two convolutions, one logit a place. On the first
    three stages of a ResNet-18, with a width of 64 and a head of 256, these are the networks of the paper.

    A training has two stages (:meth:`begin_stage`). First the student alone learns: the teacher sees the clean image,
    the student the corrupted one. Then the head alone does: both see the corrupted image. What a stage does not train
    stays as it is, batch statistics included.

    Differs from the paper: networks of other families may be the teacher. Where features may be negative (``signed``),
    or have other channels than the decoder, a convolution of one place ends the student's map. The student sees the
    image in [-1, 1], not in the teacher's scale, which the first convolution can make up for.

    Args:
        extractor: the teacher, frozen, from images (B, C, *S) to feature maps, from the shallowest to the deepest; its
            ``in_channels`` says how many channels an image has, its ``num_channels`` how many each map.
        spatial_dims: axes of the images, 2 (default) or 3.
        width: channels of the student's first stage, twice as many in each one below; paper's default 64.
        head_width: channels of the head; paper's default 256.
        dilations: of the head's pyramid; paper's default (6, 12, 18), for a first map of 64 x 64 places.
        signed: whether features may be negative, as those of EfficientNets and transformers, unlike those of ResNets;
            default False, as in the paper.

    Raises:
        ValueError: when a width or a dilation is below 1.

    Reference:
        X. Zhang, S. Li, X. Li, P. Huang, J. Shan, T. Chen: "DeSTSeg: Segmentation Guided Denoising Student-Teacher for
        Anomaly Detection", CVPR 2023, Sections 3.2 and 3.3.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import DenoisingStudent
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", layers=[2, 4, 10], weights="from_checkpoint")
        >>> network = DenoisingStudent(extractor, width=8, head_width=8, signed=True).eval()
        >>> output = network(torch.zeros(2, 1, 64, 64))
        >>> [tuple(features.shape) for features in output.prediction], tuple(output.logits.shape)
        ([(2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4)], (2, 1, 16, 16))
    """

    def __init__(
        self,
        extractor: nn.Module,
        spatial_dims: int = 2,
        width: int = 64,
        head_width: int = 256,
        dilations: Sequence[int] = (6, 12, 18),
        signed: bool = False,
    ) -> None:
        super().__init__()
        if min(width, head_width) < 1:
            raise ValueError(f"width and head_width must be at least 1, got {width} and {head_width}")
        accept_weights_of_wrapper(self, "network.")  # the name of a network in the map around it
        accept_only_whole_weights(self)
        self.extractor = extractor
        channels = cast(Sequence[int], extractor.num_channels)
        self.student = _Student(cast(int, extractor.in_channels), channels, width, signed, spatial_dims)
        self.head = _Head(sum(channels), head_width, dilations, spatial_dims)
        self.stage: Tensor
        self.register_buffer("stage", torch.tensor(STUDENT))
        for module in (*self.student.modules(), *self.head.modules()):
            if isinstance(module, Conv[Conv.CONV, spatial_dims]) and module.bias is None:  # one with a norm behind it
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as a ResNet

    def begin_stage(self, stage: int) -> None:
        """Train the student (0) or the head (1) from now on; until the latter began, the head knows nothing."""
        self.stage.fill_(stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> DenoisingStudent:
        """Set the mode of training of the part that the stage trains; the other one stays in that of evaluation."""
        super().train(mode)
        if mode:
            idle = self.head if int(self.stage) == STUDENT else self.student
            idle.eval()
        return self

    def forward(self, image: Tensor, clean: Tensor | None = None) -> DenoisingOutput:
        """What teacher and student make of images, and where the head finds that they differ.

        Args:
            image: (B, C, *S), in [-1, 1]; corrupted in a training.
            clean: the same without the corruption, which the teacher sees while the student is trained.
        """
        if self.training and image.shape[0] < 2:
            raise ValueError(
                "a training needs batches of two images or more, got one: raise batch_size, or use fewer processes"
            )
        learns = self.training and int(self.stage) == STUDENT
        target = self.extractor(clean if learns and clean is not None else image)
        if learns:
            return DenoisingOutput(self.student(image, target), target)
        # the head learns from the student as it is
        with torch.no_grad() if self.training else nullcontext():
            prediction = self.student(image, target)
        return DenoisingOutput(prediction, target, self.head(prediction, target), self.stage == HEAD)


class _Student(nn.Module):
    """From images to the feature maps of a teacher: a ResNet, and back up from its deepest stage."""

    def __init__(self, in_channels: int, channels: Sequence[int], width: int, signed: bool, axes: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, axes]
        widths = [width * 2**level for level in range(len(channels) + 1)]
        self.stem = nn.Sequential(
            conv(in_channels, width, 7, 2, 3, bias=False),
            Norm[Norm.BATCH, axes](width),
            nn.ReLU(inplace=True),
            Pool[Pool.MAX, axes](3, 2, 1),
        )
        down = [_stage(a, b, axes, 1 if a == b else 2) for a, b in pairwise([width, *widths])]
        self.encoder = nn.Sequential(*down)
        self.bottom = _stage(widths[-1], widths[-1], axes)
        self.decoder = nn.ModuleList(_stage(b, a, axes) for a, b in pairwise(widths))
        self.last = nn.ModuleList(
            conv(a, b, 1) if signed or a != b else nn.Identity() for a, b in zip(widths, channels, strict=False)
        )

    def forward(self, image: Tensor, wanted: list[Tensor]) -> list[Tensor]:
        """Maps of images (B, C, *S), of the sizes of those wanted."""
        features = self.bottom(self.encoder(self.stem(image)))
        maps: list[Tensor] = []
        for level in reversed(range(len(wanted))):
            features = self.decoder[level](enlarged(features, list(wanted[level].shape[2:])))
            maps.append(self.last[level](features))
        return maps[::-1]


class _Head(nn.Module):
    """From the feature maps of student and teacher to a logit at each place of the first map."""

    def __init__(self, channels: int, width: int, dilations: Sequence[int], axes: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, axes]
        self.residual = _stage(channels, width, axes)
        self.pyramid = AtrousPyramid(width, width, dilations, axes)
        self.last = nn.Sequential(
            conv(width, width, 3, padding=1, bias=False),
            Norm[Norm.BATCH, axes](width),
            nn.ReLU(inplace=True),
            conv(width, 1, 1),
        )

    def forward(self, prediction: list[Tensor], target: list[Tensor]) -> Tensor:
        """Logits (B, 1, *S_0)."""
        size = list(target[0].shape[2:])
        products = [F.normalize(a, dim=1) * F.normalize(b, dim=1) for a, b in zip(prediction, target, strict=True)]
        joined = torch.cat([products[0], *(enlarged(product, size) for product in products[1:])], 1)
        logits: Tensor = self.last(self.pyramid(self.residual(joined)))
        return logits


def _stage(before: int, after: int, axes: int, stride: int = 1) -> nn.Sequential:
    """Two residual blocks."""
    shortcut = None
    if stride > 1 or before != after:
        conv = Conv[Conv.CONV, axes](before, after, 1, stride, bias=False)
        shortcut = nn.Sequential(conv, Norm[Norm.BATCH, axes](after))
    return nn.Sequential(ResNetBlock(before, after, axes, stride, shortcut), ResNetBlock(after, after, axes))
