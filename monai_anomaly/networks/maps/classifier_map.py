# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from ...functional.errors import enlarged
from ...utils import accept_only_whole_weights


class ScoredMapOutput(NamedTuple):
    """An anomaly map (B, 1, *S) and a score (B, 1) that is not made of it; larger = more abnormal."""

    anomaly_map: Tensor
    score: Tensor


class TokenClassifier(Protocol):
    """What the map asks of a network; :class:`monai_anomaly.networks.nets.EncoderClassifier` is one."""

    head: nn.Module
    encoder: Any

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (B, 2) of images or features."""

    def tokens(self, image: Tensor) -> tuple[Tensor, int]:
        """Tokens (B, T, d) and how many of the first are no patches."""

    def pooled(self, tokens: Tensor, special: int) -> Tensor:
        """Features (B, d) of an image's tokens."""


class ClassifierMap(nn.Module):
    """Probability of "abnormal" of an image, and of each of its patches as if it were an image.

    The score is the method's; the map is ours, since the paper gives none: the head is asked about the tokens of each
    patch alone instead of their mean. A token of a transformer knows the whole image, so the map is a hint, not an
    outline.

    Args:
        network: the classifier.

    Reference:
        B. Bozorgtabar, D. Mahapatra, J.-P. Thiran: "AMAE: Adaptation of Pre-trained Masked Autoencoder for
        Dual-Distribution Anomaly Detection in Chest X-Rays", MICCAI 2023, Section 2.1.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        self.network = network

    @torch.no_grad()
    def predict(self, image: Tensor) -> ScoredMapOutput:
        """Map and score of images (B, C, *S); the image is encoded once."""
        network = cast(TokenClassifier, self.network)
        tokens, special = network.tokens(image)
        score = _abnormal(network(network.pooled(tokens, special)))
        patches = tokens[:, special:]
        grid = network.encoder.grid
        each = _abnormal(network.head(patches.flatten(0, 1))).reshape(-1, 1, *grid)
        return ScoredMapOutput(enlarged(each, list(image.shape[2:])), score)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def _abnormal(logits: Tensor) -> Tensor:
    """Probability of the second class (N, 1)."""
    return torch.softmax(logits.float(), 1)[:, 1:]
