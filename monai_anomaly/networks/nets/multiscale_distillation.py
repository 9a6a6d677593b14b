# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monai.networks.layers import Conv, Norm, Pool
from torch import Tensor, nn

from ..blocks.feature_learner import FeatureLearner, map_shapes
from ..blocks.outputs import FeatureOutput

_CONVOLUTIONS = (2, 2, 3)  # of the first stages; later ones have as many as the last of these, as in VGG-16


class MultiscaleDistillation(FeatureLearner):
    """A small student that learns to make the feature maps of a frozen network from the image itself (MKD, "Multi-ST").

    The student is a VGG of few channels: stages of two (the first two) or three convolutions of three places, each but
    the last of a stage with batch normalization, and a maximum over pairs of places at the end. A stage whose output
    has the size of a feature map ends with that map's channels, and is compared with it.

    Differs from the paper, whose teacher is a VGG-16: any network will do whose maps come of an image by halving. Two
    maps of one size get a stage each, the second without a maximum; and where features may be negative (``signed``), a
    map is what the last convolution gives, without a ReLU.

    Args:
        extractor: from images (B, C, *S) to feature maps, from the shallowest to the deepest; its ``in_channels`` says
            how many channels an image has. In the paper the last four maxima of a VGG-16.
        spatial_size: size *S of the images, 2D or 3D.
        width: channels of all other convolutions; default 16, as in the paper.
        signed: whether features may be negative, as those of EfficientNets and transformers; default False, as in the
            paper.

    Raises:
        ValueError: when a map does not have a size that comes of halving the images'.

    Reference:
        M. Salehi, N. Sadjadi, S. Baselizadeh, M. H. Rohban, H. R. Rabiee: "Multiresolution Knowledge Distillation for
        Anomaly Detection", CVPR 2021, Section 3.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import MultiscaleDistillation
        >>> from monai_anomaly.networks.pretrained import load_backbone
        >>> extractor = load_backbone("efficientnet_lite0", weights="from_checkpoint")
        >>> output = MultiscaleDistillation(extractor, [64, 64], signed=True)(torch.zeros(2, 1, 64, 64))
        >>> [tuple(features.shape) for features in output.prediction]
        [(2, 40, 8, 8), (2, 80, 4, 4), (2, 112, 4, 4)]
    """

    def __init__(
        self,
        extractor: nn.Module,
        spatial_size: Sequence[int],
        width: int = 16,
        signed: bool = False,
    ) -> None:
        super().__init__(extractor, len(spatial_size))
        axes = len(spatial_size)
        before, number = int(extractor.in_channels), 0  # type: ignore[arg-type]
        size = tuple(spatial_size)
        stages: list[nn.Module] = []
        self.compared: list[int] = []  # stages whose output is one of the maps
        for channels, *wanted in map_shapes(extractor, spatial_size):
            for stride in _halvings(size, wanted):
                size = tuple(-(-places // step) for places, step in zip(size, stride, strict=True))
                is_map = list(size) == wanted
                after = channels if is_map else width
                convolutions = _CONVOLUTIONS[min(number, len(_CONVOLUTIONS) - 1)]
                stages.append(_stage(before, width, after, convolutions, stride, axes, not (is_map and signed)))
                before, number = after, number + 1
            self.compared.append(len(stages) - 1)
        self.stages = nn.ModuleList(stages)

    def learn(self, image: Tensor, features: list[Tensor]) -> FeatureOutput:
        """The feature maps of images, and what the student makes of the images."""
        outputs: list[Tensor] = []
        for stage in self.stages:
            outputs.append(stage(outputs[-1] if outputs else image))
        return FeatureOutput([outputs[number] for number in self.compared], features)


def _halvings(size: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Strides of the stages that lead to a map of a certain size, at least one: of 1 where it has that size already."""
    now = list(size)
    if now == list(wanted):
        yield (1,) * len(now)
    while now != list(wanted):
        stride = tuple(2 if a > b else 1 for a, b in zip(now, wanted, strict=True))
        now = [-(-a // s) for a, s in zip(now, stride, strict=True)]
        if max(stride) == 1 or any(a < b for a, b in zip(now, wanted, strict=True)):
            raise ValueError(
                f"feature maps must have sizes that come of halving the {tuple(size)} places before, from the "
                f"shallowest to the deepest, got one of {tuple(wanted)}: choose other layers or another size of images"
            )
        yield stride


def _stage(
    before: int, width: int, after: int, convolutions: int, stride: tuple[int, ...], axes: int, positive: bool
) -> nn.Sequential:
    """Convolutions and the maximum after them; ``positive``: the last one, too, has a ReLU."""
    parts: list[nn.Module] = []
    for _ in range(convolutions - 1):
        conv = Conv[Conv.CONV, axes](before, width, 3, padding=1, bias=False)
        parts += [conv, Norm[Norm.BATCH, axes](width), nn.ReLU()]
        before = width
    parts.append(Conv[Conv.CONV, axes](before, after, 3, padding=1, bias=False))
    if positive:
        parts.append(nn.ReLU())
    if max(stride) > 1:
        parts.append(Pool[Pool.MAX, axes](stride, stride, ceil_mode=True))
    return nn.Sequential(*parts)
