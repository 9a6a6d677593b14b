# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.errors import enlarged
from ..blocks.outputs import LikelihoodOutput


def likelihood_map(output: LikelihoodOutput, size: list[int], compat: str | None = None) -> Tensor:
    """One minus the likelihood of each place, as a share of the largest one of healthy images, (B, 1, *S), in [0, 1].

    ``1 - mean over layers of min(exp(l_k - m_k), 1)``, enlarged linearly. The paper subtracts the sum from its largest
    value over the test images and takes m_k from these; with m_k of the training images no other image is needed, and
    the map is the same but for a factor and a constant, and for places likelier than any of the training.

    Args:
        output: log-likelihoods l_k of each layer and their peaks m_k.
        size: of the image, *S, to which each layer is enlarged.
        compat: ``"upd"`` does as the study of Lagogiannis et al., IEEE TMI 2023: no bound, so that the map may fall
            below 0, and corners of the maps on corners of the image.

    Raises:
        ValueError: when ``compat`` is unknown.

    Reference:
        D. Gudovskiy, S. Ishizaka, K. Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
        Conditional Normalizing Flows", WACV 2022, Section 4.
    """
    if compat not in (None, "upd"):
        raise ValueError(f"compat must be None or 'upd', got {compat!r}.")
    differences = [each - peak for each, peak in zip(output.log_likelihood, output.peak, strict=True)]
    if compat is None:
        shares = [enlarged(each.clamp(max=0).exp(), size) for each in differences]
    else:
        mode = "bilinear" if len(size) == 2 else "trilinear"
        shares = [F.interpolate(each.exp(), size=size, mode=mode, align_corners=True) for each in differences]
    return 1 - torch.stack(shares).mean(0)
