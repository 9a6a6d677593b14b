# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import torch
from monai.networks.blocks import ADN
from monai.networks.nets import FullyConnectedNet
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from ...utils import accept_only_whole_weights, accept_weights_of_wrapper

POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": lambda tokens, special: tokens[:, special:].mean(1),
    "mean_all": lambda tokens, special: tokens.mean(1),
    "cls": lambda tokens, special: tokens[:, 0],
}
NORMS = (None, "batch")


class TokenEncoder(Protocol):
    """What a classifier asks of an encoder; :class:`MaskedAutoencoder` is one, :class:`ConvolutionalEncoder` another.

    Attributes:
        hidden_size: width d of a token.
        grid: number of patches along each axis.
    """

    hidden_size: int
    grid: tuple[int, ...]

    def tokens(self, image: Tensor) -> Tensor:
        """Tokens (B, T, d) of images (B, C, *S), those of the patches last, in row-major order."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""

    def train(self, mode: bool = True) -> nn.Module:
        """Set training mode."""


class EncoderClassifier(nn.Module):
    """Small head on an encoder that tells images with a synthetic anomaly from healthy ones: stage 1 of AMAE.

    The encoder is frozen: its weights receive no gradient, and it stays in evaluation mode. So what it makes of an
    image never changes, and may be given instead of the image.

    Args:
        encoder: a :class:`MaskedAutoencoder`, pre-trained, or another network with its ``tokens``.
        hidden_channels: widths of the head's hidden layers. The paper says "3-layer" alone; default: (d, d), where d is
            the width of the encoder.
        pool: what the head sees of the tokens: the ``"mean"`` of the patches (default, as in the paper),
            ``"mean_all"``, the class token's included, or the class token alone, ``"cls"``.
        activation: between the layers of the head, by MONAI's names; default "GELU".
        dropout: in the head, in [0, 1); default 0.
        frozen: False trains the encoder too, for encoders without pre-training (AnatPaste, CutPaste end to end).
        norm: after each hidden layer of the head, ``"batch"`` for batch normalization; None (default): nothing.

    Raises:
        ValueError: when ``pool`` or ``norm`` is unknown; when called, if the former asks for a class token of an
            encoder that has none.

    Reference:
        B. Bozorgtabar, D. Mahapatra, J.-P. Thiran: "AMAE: Adaptation of Pre-trained Masked Autoencoder for
        Dual-Distribution Anomaly Detection in Chest X-Rays", MICCAI 2023, Section 2.1.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        hidden_channels: Sequence[int] | None = None,
        pool: str = "mean",
        activation: str = "GELU",
        dropout: float = 0.0,
        frozen: bool = True,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {tuple(POOLS)}, got {pool!r}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
        width = encoder.hidden_size
        self.encoder = encoder
        self.head = FullyConnectedNet(
            width,
            2,
            [width, width] if hidden_channels is None else list(hidden_channels),
            dropout=dropout or None,
            act=activation,
            adn_ordering="DA",
        )
        if norm is not None:  # which MONAI's network does not pass on
            for number, channels in enumerate(self.head.hidden_channels):
                layer = cast(nn.Sequential, self.head.get_submodule(f"hidden_{number}"))
                layer[1] = ADN("NDA", channels, activation, norm, 1, dropout or None)
        self.pool = pool
        self.frozen = frozen
        if frozen:
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
            encoder.train(False)
        accept_weights_of_wrapper(self, "network.")
        accept_only_whole_weights(self)

    def train(self, mode: bool = True) -> EncoderClassifier:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        if not self.frozen:
            return super().train(mode)
        self.training = mode  # not by the base class, which would go through the encoder at every step
        self.head.train(mode)
        return self

    def features(self, image: Tensor) -> Tensor:
        """What the head sees (B, d) of images (B, C, *S)."""
        return self.pooled(*self.tokens(image))

    def pooled(self, tokens: Tensor, special: int) -> Tensor:
        """What the head sees (B, d) of tokens (B, T, d), the first ``special`` of which are no patches."""
        if self.pool == "cls" and not special:
            raise ValueError(f"pool 'cls' needs an encoder with a class token, {type(self.encoder).__name__} has none")
        return POOLS[self.pool](tokens, special)

    def tokens(self, image: Tensor) -> tuple[Tensor, int]:
        """Tokens (B, T, d) of images (B, C, *S), and how many of the first of them are no patches."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = self.encoder.tokens(image)
        return tokens, tokens.shape[1] - math.prod(self.encoder.grid)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, 2), the second of "abnormal", of images (B, C, *S) or of their features (B, d)."""
        logits: Tensor = self.head(inputs if inputs.ndim == 2 else self.features(inputs))
        return logits


class ConvolutionalEncoder(nn.Module):
    """A convolutional network as an encoder: each place of its last feature map is a token.

    Args:
        network: makes a feature map ``(B, d, *s)`` of images ``(B, C, *S)``, itself or by its part ``features``, as
            MONAI's ``DenseNet121`` does.
        in_channels: channels C of an image.
        spatial_size: size of an image in pixels.

    Raises:
        ValueError: when the network makes no feature map; when called, if images give a map of another size.
    """

    def __init__(self, network: nn.Module, in_channels: int, spatial_size: Sequence[int]) -> None:
        super().__init__()
        self.network: nn.Module = getattr(network, "features", network)
        with torch.no_grad(), eval_mode(self.network):
            features = self.network(torch.zeros(1, in_channels, *spatial_size))
        if features.ndim != 2 + len(spatial_size):
            raise ValueError(
                f"network must make a feature map with {len(spatial_size)} spatial axes, got one of shape "
                f"{tuple(features.shape)}: give the part before its pooling and its linear layers"
            )
        self.hidden_size: int = features.shape[1]
        self.grid: tuple[int, ...] = tuple(features.shape[2:])

    def tokens(self, image: Tensor) -> Tensor:
        """Tokens (B, T, d) of images (B, C, *S)."""
        features: Tensor = self.network(image)
        if not torch.jit.is_tracing() and tuple(features.shape[2:]) != self.grid:
            raise ValueError(
                f"images of shape {tuple(image.shape)} give {tuple(features.shape[2:])} tokens instead of {self.grid}: "
                "resize the images, or make the encoder with their spatial_size"
            )
        return features.flatten(2).transpose(1, 2)
