# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_anomaly.networks.pretrained.mae_checkpoint``: published weights for :class:`MaskedAutoencoder`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...utils import atomic_path
from ..blocks.ensemble import make_member
from ..nets.masked_autoencoder import MaskedAutoencoder
from .mae_layout import IMAGENET_MEAN, IMAGENET_STD, NIH_MEAN, NIH_STD, convert_mae_state, mae_arguments

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NIH_MEAN",
    "NIH_STD",
    "convert_mae_file",
    "convert_mae_state",
    "load_mae_checkpoint",
    "main",
]

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # by width: ViT-Ti, -S, -B, -L and -H


def load_mae_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load a published MAE checkpoint without running anything that it holds.

    Args:
        path: a file with a dictionary of tensors, or one that has it as ``"model"``, beside which the options of the
            training may stand (an ``argparse.Namespace``).

    Returns:
        the tensors, and the options of the training.

    Raises:
        ValueError: when the file is missing, damaged, or holds other objects.
    """
    if not Path(path).is_file():
        raise ValueError(f"checkpoint {path} not found")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the kinds are many: damaged archives, other formats, objects that are not allowed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"checkpoint {path} is damaged, or holds objects beside tensors and training options, which are not loaded "
            f"because they could run any code ({reason}). If you trust where it comes from, load it in a program of "
            "your own, save only its dictionary of tensors with torch.save, and convert that file"
        ) from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(map(_is_named_tensor, state.items())):
        found = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"checkpoint {path} has no dictionary of tensors, nor one named 'model', but {found}")
    options = content.get("args")
    return dict(state), vars(options) if isinstance(options, argparse.Namespace) else {}


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def convert_mae_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    spatial_size: Sequence[int] | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int = 16,
    encoder_only: bool = False,
    seed: int = 0,
    **decoder: int,
) -> list[str]:
    """Write the weights of a published MAE checkpoint as those of a :class:`MaskedAutoencoder`.

    Args:
        source: see :func:`load_mae_checkpoint`.
        target: the file to write: a dictionary of tensors and nothing else.
        spatial_size: image size to convert for; None (default): that of the checkpoint, if it is a square.
        num_heads: attention heads of the encoder, which no shape shows; None (default): those of the published network
            of its width, 3 in ViT-Ti (192), 6 in ViT-S (384), 12 in ViT-B (768), 16 in ViT-L (1024) and ViT-H (1280).
        decoder_num_heads: those of the decoder, published 16.
        encoder_only: see :func:`convert_mae_state`.
        seed: seed of the decoder's weights if the encoder alone is taken.
        decoder: ``decoder_hidden_size`` and ``decoder_num_layers`` of the decoder to add if the encoder alone is taken.

    Returns:
        what was done, in sentences.

    Raises:
        ValueError: when the file cannot be loaded or converted, or heads or size must be given; the message names it.
    """
    state, options = load_mae_checkpoint(source)
    try:
        arguments = mae_arguments(state)
        if encoder_only:
            arguments = {key: v for key, v in arguments.items() if not key.startswith("decoder_")} | decoder
        if spatial_size:
            arguments["spatial_size"] = list(spatial_size)
        if "spatial_size" not in arguments:
            raise ValueError("its shapes do not show an image size: give one with --image-size")
        arguments["num_heads"] = _published_heads(arguments["hidden_size"]) if num_heads is None else num_heads
        arguments["decoder_num_heads"] = decoder_num_heads
        make = partial(MaskedAutoencoder, in_channels=arguments["network_channels"], **arguments)
        network = cast(MaskedAutoencoder, make_member(make, seed))
        converted = convert_mae_state(state, network, encoder_only)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    with atomic_path(target) as temporary:
        torch.save(converted, temporary)
    return _account(state, options, network, arguments, encoder_only)


def _published_heads(width: int) -> int:
    if width not in _HEADS:
        raise ValueError(
            f"its shapes do not show how many attention heads an encoder of width {width} has, which is known for "
            f"{', '.join(map(str, _HEADS))} alone: give --num-heads"
        )
    return _HEADS[width]


def _account(
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    network: MaskedAutoencoder,
    arguments: dict[str, Any],
    encoder_only: bool,
) -> list[str]:
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    rows = [
        f"{'encoder' if encoder_only else 'encoder and decoder'} of {len(state)} tensors converted, "
        f"{millions:.2f} million parameters",
        f"arguments of MaskedAutoencoder: {json.dumps(arguments)}",
        f"positions: made for {' x '.join(map(str, network.grid))} patches"
        + (f", {state['pos_embed'].shape[1] - 1} in the checkpoint" if "pos_embed" in state else ""),
    ]
    if encoder_only:
        rows.append("the decoder is untrained: train it before reconstructions are looked at")
    if options.get("norm_pix_loss") and not encoder_only:
        rows.append("warning: trained with norm_pix_loss, so that its predictions are no images: train it further")
    if network.network_channels == 3:
        rows.append(
            f"three channels: normalize as in training, such as mean={IMAGENET_MEAN}, std={IMAGENET_STD} (ImageNet, "
            f"CheXpert) or mean={NIH_MEAN[0]}, std={NIH_STD[0]} (NIH ChestX-ray14); for gray images set in_channels=1"
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 1 where the checkpoint was refused, else 0.

    Args:
        arguments: of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_anomaly.networks.pretrained.mae_checkpoint",
        description="Convert a published MAE checkpoint (He et al. 2022; Xiao et al. 2023) to weights of "
        "MaskedAutoencoder. Nothing but tensors is loaded and written. Exit code 1 where the checkpoint is refused.",
    )
    parser.add_argument("checkpoint", help="file with the tensors, or with a dictionary that has them as 'model'")
    parser.add_argument("output", help="file to write")
    add = parser.add_argument
    add("--image-size", type=int, nargs="+", help="pixels, one number or two (default: as in the checkpoint)")
    add("--num-heads", type=int, help="attention heads of the encoder (default: as published for its width, ViT-S: 6)")
    add("--decoder-num-heads", type=int, default=16, help="attention heads of the decoder (default 16)")
    add("--encoder-only", action="store_true", help="take the encoder and add an untrained decoder")
    add("--decoder-hidden-size", type=int, default=512, help="with --encoder-only: width of the decoder (default 512)")
    add("--decoder-num-layers", type=int, default=2, help="with --encoder-only: blocks of the decoder (default 2)")
    add("--seed", type=int, default=0, help="with --encoder-only: seed of the decoder's weights")
    given = parser.parse_args(arguments)
    decoder = {"decoder_hidden_size": given.decoder_hidden_size, "decoder_num_layers": given.decoder_num_layers}
    image_size = given.image_size * 2 if given.image_size and len(given.image_size) == 1 else given.image_size
    try:
        rows = convert_mae_file(
            given.checkpoint,
            given.output,
            image_size,
            given.num_heads,
            given.decoder_num_heads,
            given.encoder_only,
            given.seed,
            **decoder,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join([*rows, f"written: {given.output}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
