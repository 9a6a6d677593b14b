# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What networks return: named fields instead of positions."""

from __future__ import annotations

from typing import List, NamedTuple, Optional  # noqa: UP035

from torch import Tensor

# TorchScript reads these annotations, and it does not know ``Tensor | None`` in a named tuple


class AutoencoderOutput(NamedTuple):
    """What an autoencoder returns.

    Attributes:
        reconstruction: the image as the network sees it (B, C, *S); for AE-U the predicted mean.
        code: latent code (B, Z), before a memory replaces it.
        features: the layer chosen by ``feature_layer`` (B, ...), which repulsion compares.
        address: weights of the memory slots (B, M), each row summing to 1; None without a memory.
        log_variance: predicted logarithm of the variance (B, C, *S); None unless the network predicts it.
    """

    reconstruction: Tensor
    code: Tensor
    features: Tensor
    address: Optional[Tensor] = None  # noqa: UP045
    log_variance: Optional[Tensor] = None  # noqa: UP045


class EnsembleOutput(NamedTuple):
    """What an ensemble returns while one of its members is trained.

    Attributes:
        member: the output of the member in training.
        senior_features: features of the J members trained before, (J, B, ...), without gradient; None for the first.
    """

    member: AutoencoderOutput
    senior_features: Optional[Tensor] = None  # noqa: UP045


class MaskedOutput(NamedTuple):
    """What a masked autoencoder returns for L sets of kept patches an image.

    Attributes:
        prediction: the patches as the network reconstructs them (B, L, T, P).
        target: the patches of the network's input (B, T, P), see :func:`monai_anomaly.functional.patchify`.
        mask: which patches were removed (B, L, T): 1 = removed, 0 = kept.
    """

    prediction: Tensor
    target: Tensor
    mask: Tensor


class FeatureOutput(NamedTuple):
    """What a network returns that reconstructs or imitates features of another one.

    Attributes:
        prediction: its feature maps (B, C_i, *S_i), one for each layer.
        target: those of the other network, of the same shapes.
    """

    prediction: List[Tensor]  # noqa: UP006
    target: List[Tensor]  # noqa: UP006


class DenoisingOutput(NamedTuple):
    """What a denoising student returns, with its teacher and its head.

    Attributes:
        prediction: feature maps of the student (B, C_i, *S_i), one for each layer.
        target: those of the teacher, of the same shapes.
        logits: of the head for "abnormal", ``(B, 1, *S_0)``; None while the student is trained.
        head_trained: whether the training of the head has begun, of no axes; None while the student is trained.
    """

    prediction: List[Tensor]  # noqa: UP006
    target: List[Tensor]  # noqa: UP006
    logits: Optional[Tensor] = None  # noqa: UP045
    head_trained: Optional[Tensor] = None  # noqa: UP045


class LikelihoodOutput(NamedTuple):
    """What a network returns that tells how likely features are among those of healthy images.

    Attributes:
        log_likelihood: logarithms of the density at each place, divided by the number of channels, one map
            (B, 1, *S_i) for each layer.
        peak: the largest ones of healthy images, one number for each layer (L,).
    """

    log_likelihood: List[Tensor]  # noqa: UP006
    peak: Tensor
