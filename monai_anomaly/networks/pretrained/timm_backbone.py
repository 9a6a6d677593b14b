# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Any network of the package timm as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import
from torch import Tensor, nn

from .backbone import FROM_CHECKPOINT, Backbone, Layers, Weights
from .weight_file import forget_weights, read_tensors

PREFIX = "timm/"
_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm stores weights, the first preferred


class TimmFeatureMaps(nn.Module):
    """Feature maps of a network of timm: levels of a convolutional one, blocks of a transformer as grids of tokens.

    Class and register tokens of a transformer are left out; its maps get its final normalization, as DINOv2 gives
    intermediate layers. What is not needed for the maps is not kept.

    Args:
        network: made by ``timm.create_model``.
        layers: numbers of the levels or blocks, from 0.

    Raises:
        ValueError: when the network cannot give feature maps, or there is no such layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[int | str]) -> None:
        super().__init__()
        levels = feature_levels(network)
        numbers = [layer for layer in layers if isinstance(layer, int) and 0 <= layer < len(levels)]
        if not layers or len(set(numbers)) < len(layers):
            raise ValueError(
                f"layers of {type(network).__name__} are different numbers in [0, {len(levels)}), got {list(layers)}"
            )
        self.normalize = is_columnar(network)
        self.num_channels = tuple(int(levels[layer]["num_chs"]) for layer in numbers)
        self.patch = int(levels[0]["reduction"]) if self.normalize else 1
        depth_order = sorted(numbers)
        self.indices = list(depth_order)
        self.order = [depth_order.index(layer) for layer in numbers]  # timm returns maps from the first to the deepest
        prune: Any = network.prune_intermediate_layers
        prune(self.indices, prune_norm=False, prune_head=True)
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps (B, C_i, h, w) of images (B, 3, H, W).

        Raises:
            ValueError: when a transformer's patches do not fill the images.
        """
        if any(size % self.patch for size in image.shape[2:]):
            raise ValueError(
                f"the backbone cuts images into patches of {self.patch} pixels, got {tuple(image.shape[2:])}: resize "
                "the images to a multiple of it"
            )
        read: Any = self.network.forward_intermediates
        maps = read(image, indices=self.indices, norm=self.normalize, stop_early=True, intermediates_only=True)
        return [maps[place] for place in self.order]


def feature_levels(network: nn.Module) -> list[Mapping[str, Any]]:
    """What a network of timm says of its levels or blocks: ``num_chs``, and ``reduction``, the pixels of a step."""
    levels = getattr(network, "feature_info", None)
    if not levels or not hasattr(network, "forward_intermediates"):
        raise ValueError(f"{type(network).__name__} of timm does not give feature maps: take another network")
    return list(levels)


def is_columnar(network: nn.Module) -> bool:
    """Whether all maps have the same size, as those of a plain vision transformer."""
    return len({level["reduction"] for level in feature_levels(network)}) == 1 and hasattr(network, "blocks")


def timm_backbone(name: str, layers: Layers, weights: Weights) -> Backbone:
    """A network of timm as a backbone; see :func:`load_backbone`.

    Args:
        name: ``timm/`` and a name that ``timm.create_model`` takes, such as ``timm/vit_small_patch14_dinov2.lvd142m``.
        layers: numbers of levels (0 is the first map of a convolutional network) or of transformer blocks. None: the
            levels of a convolutional network at a quarter, an eighth and a sixteenth of the size; the last block of a
            transformer, as AnomalyDINO.
        weights: path of a file for that network; None: what timm left in its cache.

    Raises:
        ValueError: when timm, the network or the weights are missing, or do not fit.
    """
    timm, installed = optional_import("timm")
    if not installed:
        raise ValueError(f"the backbone {name!r} needs the package timm: pip install monai-anomaly[timm]")
    model = name.removeprefix(PREFIX)
    if not timm.is_model(model):
        raise ValueError(f"timm has no network {model!r}: timm.list_models() has the names")
    path = _cached_file(timm, name, model) if weights is None else weights
    state = None if path == FROM_CHECKPOINT else read_tensors(path)
    try:
        network = _create(timm, model, state)
    except (RuntimeError, KeyError) as error:  # names or shapes, or what timm missed when it renamed them
        raise ValueError(f"weights {path} do not fit {name!r} ({str(error)[:300]} ...)") from error
    if state is None:
        forget_weights(network)
    config: Mapping[str, Any] = network.pretrained_cfg
    chosen = _default_layers(network) if layers is None else layers
    maps = TimmFeatureMaps(network, chosen)
    return Backbone(maps, None, config["mean"], config["std"], None if state is None else path)


def _create(timm: Any, model: str, state: Mapping[str, Tensor] | None) -> Any:
    """Make the network with the weights, which timm renames where they are of another origin and loads strictly."""
    given: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": dict(state)}}
    with torch.random.fork_rng(devices=[]):  # the weights that timm draws first are nobody's concern
        try:
            return timm.create_model(model, pretrained=state is not None, dynamic_img_size=True, **given)
        except TypeError:  # not a transformer that could be asked for images of any size
            return timm.create_model(model, pretrained=state is not None, **given)


def _default_layers(network: nn.Module) -> list[int]:
    levels = feature_levels(network)
    if is_columnar(network):
        return [len(levels) - 1]
    return [number for number, level in enumerate(levels) if level["reduction"] in (4, 8, 16)]


def _cached_file(timm: Any, name: str, model: str) -> Path:
    """The file that timm downloaded before; nothing is downloaded."""
    find, installed = optional_import("huggingface_hub", name="try_to_load_from_cache")
    repository = timm.get_pretrained_cfg(model).hf_hub_id
    for file in _FILES if repository and installed else ():
        path = find(repository, file)
        if isinstance(path, str):
            return Path(path)
    raise ValueError(
        f"the weights of {name!r} are not in the cache of timm, and nothing is downloaded here: give the path of a "
        f"file, or fetch them once: python -c \"import timm; timm.create_model('{model}', pretrained=True)\""
    )
