# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks of bundles that read features of a pre-trained one, ready to be asked: of themselves they say nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

# what makes such networks small: each recipe reads those that it has
SMALL_FIT: dict[str, Any] = {"grid": 4, "memory_size": 4, "projected": 16, "num_features": 8}
SMALL_FIT |= {"feature_channels": [8, 8], "ssim_window": 3, "flow_blocks": 2, "condition": 8}


def has_backbone(config: Any) -> bool:
    """Whether the network of a configuration reads features of a pre-trained one."""
    return "backbone" in config


def is_fitted(config: Any) -> bool:
    """Whether the network of a configuration is fitted, not trained."""
    return "head" in config


def skip_volumes(config: Any, dims: int) -> None:
    """Leave a test out whose images have more axes than the pre-trained network takes."""
    if has_backbone(config) and dims == 3:
        pytest.skip("the backbone that comes as a package takes images of two axes")


def ready(parser: ConfigParser, part: str = "network_def") -> Any:
    """The network of a configuration, fitted to random images, or where it is trained with statistics of such.

    Args:
        parser: the configuration; it is changed so that a pre-trained network has its weights.
        part: id of the network.
    """
    if has_backbone(parser):
        parser.update({"backbone_weights": None})
    network = parser.get_parsed_content(part)
    if not has_backbone(parser):
        return network
    shape = (4, parser.get_parsed_content("in_channels"), *parser.get_parsed_content("spatial_size"))
    images = torch.rand(shape, generator=torch.Generator().manual_seed(4)) * 2 - 1
    if is_fitted(parser):
        network.fit_batch(images)
        network.finish()
    else:
        gather(network, images)
    return network


@torch.no_grad()
def gather(network: Any, images: Tensor) -> None:
    """Let the network of a map take in the statistics of images that a training gathers."""
    network.network.train()(images)
    if hasattr(network.network, "begin_stage"):
        network.network.begin_stage(1)
    network.eval()
