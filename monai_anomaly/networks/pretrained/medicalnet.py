# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""ResNets for volumes with the weights of MedicalNet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from monai.networks.nets.resnet import ResNet, ResNetBlock, get_inplanes, resnet_params
from torch import nn

from ..nets.zero_shortcut import ZeroShortcut
from .backbone import Backbone, Layers, Weights, fill_weights, stage_names
from .weight_file import read_tensors, take_weights, without_weights

PREFIX = "medicalnet_"
_DILATIONS = {"layer3": 2, "layer4": 4}  # in place of strides, since the networks were trained to segment


def medicalnet_names() -> list[str]:
    """``medicalnet_resnet10`` to ``medicalnet_resnet200``."""
    return [f"{PREFIX}{name}" for name in resnet_params]


def medicalnet_resnet(name: str) -> ResNet:
    """MONAI's ``ResNet`` as the weights of MedicalNet were trained, without a head; its weights are NaN until loaded.

    MONAI's own settings for these weights have a stride of 2 in the third and fourth stage; in the published network
    they have dilations of 2 and 4 instead, and all maps behind the second stage an eighth of the size.

    Args:
        name: one of :func:`medicalnet_names`.

    Reference:
        S. Chen, K. Ma, Y. Zheng: "Med3D: Transfer Learning for 3D Medical Image Analysis", arXiv:1904.00625, 2019,
        Section 3.2.
    """
    block, layers, shortcut, bias, _ = resnet_params[name.removeprefix(PREFIX)]
    make = partial(
        ResNet,
        block,
        layers,
        get_inplanes(),
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_size=7,
        conv1_t_stride=2,
        shortcut_type=shortcut,
        bias_downsample=bias,
        feed_forward=False,
    )
    network = without_weights(make)
    for number in range(1, 5):
        stage = getattr(network, f"layer{number}")
        if shortcut == "A":
            _make_shortcut_module(stage[0])
        if (dilation := _DILATIONS.get(f"layer{number}")) is not None:
            _dilate(stage, dilation)
    return network


def medicalnet_backbone(name: str, layers: Layers, weights: Weights) -> Backbone:
    """One of these networks as a backbone; see :func:`load_backbone`.

    The networks saw volumes of mean 0 and deviation 1, each scaled by itself; images in [-1, 1] are taken as they are.

    Args:
        name: one of :func:`medicalnet_names`.
        layers: 0 for the stem, 1 to 4 for the stages; None: 1, 2 and 3.
        weights: path of a published file; there is no default.

    Raises:
        ValueError: when no weights are given, or they do not fit.
    """
    network = medicalnet_resnet(name)

    def default() -> Path:
        depth = name.removeprefix(f"{PREFIX}resnet")
        raise ValueError(
            f"{name} needs the path of its weights, since nothing is downloaded here: get resnet_{depth}_23dataset.pth "
            f"or resnet_{depth}.pth from where MedicalNet publishes them"
        )

    def load(path: Weights) -> None:
        passed_over = ("fc.", "conv_seg.")
        take_weights(network, read_tensors(str(path)), str, str(path), passed_over)

    path = fill_weights(weights, default, load)
    return Backbone(network, stage_names(layers), [0.5], [0.5], path)


def _make_shortcut_module(block: Any) -> None:
    """Replace the function that shortens the input of a stage's first block, if it has one, by a module."""
    if block.downsample is not None:
        outputs = block.conv2.out_channels if isinstance(block, ResNetBlock) else block.conv3.out_channels
        block.downsample = ZeroShortcut(block.conv1.in_channels, outputs, block.stride)


def _dilate(stage: nn.Module, dilation: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv3d):
            module.stride = (1, 1, 1)
            if module.kernel_size[0] == 3:
                module.dilation = module.padding = (dilation,) * 3
        elif isinstance(module, ZeroShortcut):
            module.stride = 1
