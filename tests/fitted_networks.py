# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks of bundles that are fitted, ready to be asked: of themselves they say nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

# what makes what is fitted small: each recipe reads those that it has
SMALL_FIT: dict[str, Any] = {"grid": 4, "memory_size": 4, "projected": 16, "num_features": 8}


def is_fitted(config: Any) -> bool:
    """Whether the network of a configuration is fitted, not trained."""
    return "backbone" in config


def skip_volumes(config: Any, dims: int) -> None:
    """Leave a test out whose images have more axes than the pre-trained network takes."""
    if is_fitted(config) and dims == 3:
        pytest.skip("the backbone that comes as a package takes images of two axes")


def ready(parser: ConfigParser, part: str = "network_def") -> Any:
    """The network of a configuration, fitted to random images where it is one that is fitted.

    Args:
        parser: the configuration; it is changed so that a pre-trained network has its weights.
        part: id of the network.
    """
    if not is_fitted(parser):
        return parser.get_parsed_content(part)
    parser.update({"backbone_weights": None})
    network = parser.get_parsed_content(part)
    shape = (4, parser.get_parsed_content("in_channels"), *parser.get_parsed_content("spatial_size"))
    network.fit_batch(torch.rand(shape, generator=torch.Generator().manual_seed(4)) * 2 - 1)
    network.finish()
    return network
