# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The encoder that the bundle ``mae_pretrain`` trained, as a backbone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...utils import load_weights, read_settings
from ..nets.masked_autoencoder import MaskedAutoencoder
from .backbone import FROM_CHECKPOINT, Backbone, Layers, Weights

_NEEDED = ("spatial_size", "patch_size", "hidden_size", "num_layers", "num_heads")


class MaskedEncoderMaps(nn.Module):
    """Tokens of whole images after some blocks of a masked autoencoder's encoder, laid out on the grid of patches.

    The token of the class is left out. The decoder, and the blocks behind the last that is read, are not kept.

    Args:
        network: the autoencoder, which this takes apart.
        blocks: numbers of the transformer blocks to read, from 0; the last stands for the last block with the
            encoder's final normalization, as :meth:`MaskedAutoencoder.tokens` gives it.

    Raises:
        ValueError: when there is no such block.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import MaskedAutoencoder
        >>> from monai_anomaly.networks.pretrained import MaskedEncoderMaps
        >>> small = {"hidden_size": 24, "num_heads": 3, "decoder_hidden_size": 24, "decoder_num_heads": 3}
        >>> maps = MaskedEncoderMaps(MaskedAutoencoder(spatial_size=32, patch_size=8, num_layers=2, **small), [0, 1])
        >>> [tuple(tokens.shape) for tokens in maps(torch.zeros(2, 1, 32, 32))]
        [(2, 24, 4, 4), (2, 24, 4, 4)]
    """

    def __init__(self, network: MaskedAutoencoder, blocks: Sequence[int]) -> None:
        super().__init__()
        encoder = list(network.vit.blocks)
        self.depth = len(encoder) - 1  # MONAI keeps the final normalization as the last of the blocks
        if not blocks or any(not 0 <= block < self.depth for block in blocks):
            raise ValueError(f"layers must be numbers of transformer blocks in [0, {self.depth}), got {list(blocks)}")
        self.blocks = tuple(blocks)
        self.num_channels = (network.hidden_size,) * len(self.blocks)
        self.network = network
        last = max(self.blocks) + 1
        network.vit.blocks = nn.Sequential(*encoder[: last + (last == self.depth)])
        for name in [name for name in vars(network.vit)["_modules"] if name.startswith("decoder_")]:
            setattr(network.vit, name, nn.Identity())
        for name in ("mask_tokens", "decoder_pos_embedding"):
            setattr(network.vit, name, None)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps (B, d, *G) of images (B, C, *S) in [-1, 1], G patches an axis, one for each block that is read."""
        network = self.network
        tokens = network.embed(image)
        read = {}
        for number, block in enumerate(network.vit.blocks):
            tokens = block(tokens)
            read[min(number, self.depth - 1)] = tokens
        return [read[block][:, 1:].transpose(1, 2).unflatten(2, network.grid) for block in self.blocks]


def mae_backbone(name: str, layers: Layers, weights: Weights) -> Backbone:
    """The encoder of a masked autoencoder as a backbone; see :func:`load_backbone`.

    Args:
        name: ``"mae"``.
        layers: numbers of transformer blocks, from 0; None: the last.
        weights: ``model.pt`` of the bundle ``mae_pretrain``, which says by itself how the network is built.

    Raises:
        ValueError: when no weights are given, or they do not say how the network is built, or do not fit.
    """
    if weights is None or weights == FROM_CHECKPOINT:
        raise ValueError(f"the backbone {name!r} needs the path of the model.pt of the bundle mae_pretrain as weights")
    if not Path(weights).is_file():
        raise ValueError(f"weights {weights} not found: train the bundle mae_pretrain, give its model.pt")
    settings = read_settings(weights)
    missing = [key for key in _NEEDED if key not in settings]
    if missing:
        raise ValueError(
            f"{weights} does not say its {', '.join(missing)}: give the model.pt as the bundle mae_pretrain wrote it, "
            "or its training.json beside it"
        )
    with torch.random.fork_rng(devices=[]):  # the weights that it draws first are nobody's concern
        network = MaskedAutoencoder(spatial_dims=len(settings["spatial_size"]), **_arguments(settings))
    load_weights(network, weights, "does not fit the settings recorded with it: copy it again from the training")
    chosen = [settings["num_layers"] - 1] if layers is None else list(layers)
    if not all(isinstance(layer, int) for layer in chosen):
        raise ValueError(f"layers of the backbone {name!r} are numbers of transformer blocks, got {chosen}")
    maps = MaskedEncoderMaps(network, [int(layer) for layer in chosen])
    identity = [0.5] * network.in_channels  # the network scales images in [-1, 1] itself
    return Backbone(maps, None, identity, identity, weights)


def _arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the recorded settings that are arguments of the network."""
    known = set(inspect.signature(MaskedAutoencoder).parameters) - {"spatial_dims"}
    return {name: value for name, value in settings.items() if name in known}
