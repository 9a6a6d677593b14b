# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

FROM_CHECKPOINT = "from_checkpoint"  # in place of a path: weights come with a checkpoint that is loaded next

Layers = Sequence[int | str] | None
Weights = str | os.PathLike[str] | None


class Backbone(NamedTuple):
    """A network with its weights, and what must be known to read features from it.

    Args:
        network: one tensor of images in.
        layers: names of the submodules to read; None: the network returns a list of maps itself.
        mean: of each network channel in its training, for intensities in [0, 1].
        std: likewise the deviation.
        path: file that the weights are from, None where they come with a checkpoint.
    """

    network: nn.Module
    layers: list[str] | None
    mean: Sequence[float]
    std: Sequence[float]
    path: Weights


def fill_weights(weights: Weights, default: Callable[[], Path], load: Callable[[Weights], None]) -> Weights:
    """Load the weights of a backbone, and say from which file.

    Args:
        weights: path; None: the default; :data:`FROM_CHECKPOINT`: none yet.
        default: finds the file that is there without being told, or says how to get one.
        load: loads a file.
    """
    if weights == FROM_CHECKPOINT:
        return None
    path = default() if weights is None else weights
    load(path)
    return path


def layer_names(layers: Sequence[int | str], pattern: str) -> list[str]:
    """Names of layers, where numbers are put into a pattern such as ``"blocks.{}"``."""
    return [pattern.format(layer) if isinstance(layer, int) else layer for layer in layers]


def stage_names(layers: Layers) -> list[str]:
    """Names of the layers of a ResNet: 0 is its stem, 1 to 4 its stages; None: 1, 2 and 3."""
    chosen = (1, 2, 3) if layers is None else layers
    return layer_names(["maxpool" if layer == 0 else layer for layer in chosen], "layer{}")
