# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The layout of published MAE weights, and what they become in :class:`MaskedAutoencoder`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from torch import Tensor

from ..nets.masked_autoencoder import MaskedAutoencoder, without_meshgrid_warning

# mean and std of MaskedAutoencoder for published weights: those that their training images were normalized by
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # He et al.; CheXpert, MIMIC by Xiao et al.
NIH_MEAN, NIH_STD = (0.5056, 0.5056, 0.5056), (0.252, 0.252, 0.252)  # NIH ChestX-ray14 by Xiao et al.

_RENAMED = {
    r"^vit\.": "",
    r"^patch_embedding\.patch_embeddings\.": "patch_embed.proj.",
    r"^mask_tokens$": "mask_token",
    r"\.out_proj\.": ".proj.",
    r"\.linear([12])\.": r".fc\1.",
}
_NOT_PUBLISHED = re.compile(r"norm_cross_attn|pos(ition)?_embedd?ings?$")
_POSITIONS = ("pos_embed", "decoder_pos_embed")
_DECODER = ("decoder_", "mask_token")
_TOLERANCE = 1e-4  # tables computed in single and in double precision differ by 7e-7, learned ones by far more
_AXES = {"cls_token": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2, "pos_embed": 3}


def mae_key_map(network: MaskedAutoencoder) -> dict[str, str]:
    """Names of a network's tensors in a published checkpoint, by the names they have in the network.

    Fixed tables of positions, and what MONAI's blocks hold without using it, have no such name.

    Args:
        network: the network.
    """
    final = {
        rf"^blocks\.{len(network.vit.blocks) - 1}\.": "norm.",
        rf"^decoder_blocks\.{len(network.vit.decoder_blocks) - 1}\.": "decoder_norm.",
    }
    names = {}
    for own in network.state_dict():
        if not _NOT_PUBLISHED.search(own):
            name = own
            for pattern, replacement in (_RENAMED | final).items():
                name = re.sub(pattern, replacement, name)
            names[own] = name
    return names


def convert_mae_state(
    state: Mapping[str, Tensor], network: MaskedAutoencoder, encoder_only: bool = False
) -> dict[str, Tensor]:
    """Turn published MAE weights into weights of a :class:`MaskedAutoencoder`.

    The tables of positions follow from the size of the image and are those of the network; the checkpoint's are only
    looked at, to refuse learned ones.

    Args:
        state: tensors in the layout of the published code (``cls_token``, ``blocks.0.attn.qkv.weight``, ...).
        network: a network of the same widths, depths and patch size; its image size may be another.
        encoder_only: take the encoder alone; the decoder stays as it is in the network. Default False.

    Returns:
        all tensors of the network, float32, for ``network.load_state_dict``.

    Raises:
        ValueError: when tensors are missing, left over, empty, of another type or shape, not finite, or the positions
            are learned.

    Reference:
        K. He et al.: "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; J. Xiao et al.: "Delving into
        Masked Autoencoders for Multi-Label Thorax Disease Classification", WACV 2023.
    """
    _check_kinds(state)
    if len(network.grid) != 2:
        raise ValueError(f"published MAE weights are of 2D networks, got one with {len(network.grid)} spatial axes")
    names = {
        own: name for own, name in mae_key_map(network).items() if not (encoder_only and name.startswith(_DECODER))
    }
    _check_names(state, set(names.values()), encoder_only)
    converted = {own: tensor.detach().clone() for own, tensor in network.state_dict().items()}
    _check_tensors(state, {name: converted[own] for own, name in names.items()})
    for key in _POSITIONS[: 1 if encoder_only else 2]:
        if key in state:
            _check_positions(key, state[key])
    return converted | {own: state[name].detach().to("cpu", torch.float32, copy=True) for own, name in names.items()}


def mae_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the :class:`MaskedAutoencoder` that published weights are of, as far as their shapes show them.

    Args:
        state: tensors in the layout of the published code. Without a decoder, its arguments are left out; the numbers
            of attention heads are not to be seen in any shape.

    Returns:
        ``network_channels``, ``patch_size``, ``hidden_size``, ``num_layers``, ``mlp_dim``, the decoder's, and
        ``spatial_size`` where the number of positions is that of a square image.

    Raises:
        ValueError: when these are not the weights of an MAE.
    """
    _check_kinds(state)
    _require(state, [name for name in _AXES if name != "pos_embed"])
    wrong = [f"{name} {tuple(state[name].shape)}" for name, axes in _AXES.items() if _has_other_axes(state, name, axes)]
    if wrong:
        raise ValueError(f"the checkpoint has {_some(wrong)}, so it is not of an MAE for 2D images")
    projection = state["patch_embed.proj.weight"]
    arguments: dict[str, Any] = {
        "network_channels": projection.shape[1],
        "patch_size": list(projection.shape[2:]),
        "hidden_size": state["cls_token"].shape[-1],
        "num_layers": _depth(state, "blocks"),
        "mlp_dim": state["blocks.0.mlp.fc1.weight"].shape[0],
    }
    if "decoder_embed.weight" in state and "decoder_blocks.0.mlp.fc1.weight" in state:
        arguments |= {
            "decoder_hidden_size": state["decoder_embed.weight"].shape[0],
            "decoder_num_layers": _depth(state, "decoder_blocks"),
            "decoder_mlp_dim": state["decoder_blocks.0.mlp.fc1.weight"].shape[0],
        }
    side = math.isqrt(state["pos_embed"].shape[1] - 1) if "pos_embed" in state else 0
    if side and side**2 == state["pos_embed"].shape[1] - 1:
        arguments["spatial_size"] = [side * patch for patch in arguments["patch_size"]]
    return arguments


def _check_kinds(state: Mapping[str, Tensor]) -> None:
    """Refuse what cannot be a weight, which everything else relies on."""
    wrong = [
        f"{name} {tuple(tensor.shape)} of {tensor.dtype}"
        for name, tensor in state.items()
        if not tensor.is_floating_point() or 0 in tensor.shape
    ]
    if wrong:
        raise ValueError(f"the checkpoint has {_some(wrong)}: weights are floating-point numbers, at least one an axis")


def _has_other_axes(state: Mapping[str, Tensor], name: str, axes: int) -> bool:
    return name in state and state[name].ndim != axes


def _depth(state: Mapping[str, Tensor], blocks: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{blocks}.")})


def _require(state: Mapping[str, Tensor], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(
            f"the checkpoint lacks {_some(missing)}, so it is not of an MAE of these sizes; it begins with "
            f"{_some(list(state))}"
        )


def _check_names(state: Mapping[str, Tensor], names: set[str], encoder_only: bool) -> None:
    """Refuse a checkpoint that lacks one of the names or has another."""
    if not any(name.startswith(_DECODER) for name in state) and not encoder_only:
        raise ValueError(
            "the checkpoint holds an encoder without a decoder: take the one that pre-training wrote, or say "
            "encoder_only=True (--encoder-only) and train the decoder anew"
        )
    _require(state, sorted(names))
    passed_over = (*_DECODER, "head.") if encoder_only else ()
    others = [name for name in state if name not in {*names, *_POSITIONS} and not name.startswith(passed_over)]
    if others:
        raise ValueError(
            f"the checkpoint has {_some(others)}, which the network has not: it is deeper than the network, or its "
            "network is another"
        )


def _check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint has other sizes than the network: {_some(wrong)}; build the network with "
            f"{mae_arguments(state)}"
        )
    broken = [name for name in expected if not torch.isfinite(state[name]).all()]
    if broken:
        raise ValueError(f"the checkpoint has values that are not finite, in {_some(broken)}: its training diverged")


def _check_positions(key: str, table: Tensor) -> None:
    """Refuse positions (1, 1 + T, d) that are not sines and cosines over some grid of T patches, first that of cls."""
    if table.ndim != 3 or table.shape[1] < 2 or not _is_fixed_table(table):
        raise ValueError(
            f"{key} {tuple(table.shape)} is not the fixed table of sines and cosines of an MAE: positions that were "
            "learned cannot be taken over"
        )


def _is_fixed_table(table: Tensor) -> bool:
    tolerance = max(_TOLERANCE, torch.finfo(table.dtype).eps)
    num_patches, width = table.shape[1] - 1, table.shape[2]
    if width % 4 or table[:, 0].abs().max() > tolerance:
        return False
    grids = [[rows, num_patches // rows] for rows in range(1, num_patches + 1) if num_patches % rows == 0]
    with without_meshgrid_warning():
        tables = (build_sincos_position_embedding(grid, width, 2).data for grid in grids)
        return any(torch.allclose(table[:, 1:].float(), fixed, rtol=0, atol=tolerance) for fixed in tables)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
