# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The published EfficientNet-Lite, and a radiograph to compare with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor

from monai_anomaly.data import sample_dir
from monai_anomaly.networks.pretrained import efficientnet_lite_file


@cache
def published(scale: int) -> EfficientNet:
    # image_size=None: padding by the size of each image, as TensorFlow does it
    network = EfficientNet.from_name(f"efficientnet-lite{scale}", image_size=None)
    network.load_state_dict(torch.load(efficientnet_lite_file(scale), map_location="cpu", weights_only=True))
    return network.eval()


def radiograph(height: int, width: int) -> Tensor:
    """A radiograph (1, 1, H, W) of the embedded sample, whole numbers in [0, 255]."""
    path = sorted(Path(sample_dir(), "images").glob("*.png"))[0]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L").resize((width, height)), dtype=np.float32)
    return torch.from_numpy(pixels)[None, None]
