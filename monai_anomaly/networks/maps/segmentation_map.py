# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.errors import enlarged
from ..blocks.outputs import DenoisingOutput


def segmentation_map(output: DenoisingOutput, size: list[int]) -> Tensor:
    """Probability of "abnormal" at each place of a denoising student's head, enlarged linearly, (B, 1, *S).

    As long as the head has learned nothing, the product over the layers of one minus the cosine similarity of features,
    each enlarged before, takes its place, so that validations of the first stage say how the student does: the paper's
    map without the head.

    Args:
        output: what a :class:`monai_anomaly.networks.nets.DenoisingStudent` returned in evaluation mode.
        size: of the image, *S.

    Raises:
        ValueError: when the network did not ask its head.

    Reference:
        X. Zhang, S. Li, X. Li, P. Huang, J. Shan, T. Chen: "DeSTSeg: Segmentation Guided Denoising Student-Teacher for
        Anomaly Detection", CVPR 2023, Section 3.4 and the ablation without a segmentation network.
    """
    if output.logits is None or output.head_trained is None:
        raise ValueError("the network must be in evaluation mode, got an output without logits")
    distances = [
        enlarged(1 - F.cosine_similarity(made, wanted, dim=1)[:, None], size)
        for made, wanted in zip(output.prediction, output.target, strict=True)
    ]
    return torch.where(output.head_trained, enlarged(torch.sigmoid(output.logits), size), math.prod(distances))
