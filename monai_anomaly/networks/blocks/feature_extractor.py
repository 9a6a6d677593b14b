# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ...utils import plain_tensor
from .layer_reader import read_layers


class FeatureExtractor(nn.Module):
    """Feature maps that a pre-trained network makes of an image, frozen for good.

    It brings an image from the scale of the bundles to what the network was trained on,
    ``((x + 1) / 2 - mean) / std``, repeats a single channel, and returns what the named layers give. Nothing in it ever
    learns: its parameters want no gradient, whoever asks for one, and its batch statistics stay as they were trained,
    whatever ``train()`` is called on. A gradient with respect to the image passes through.

    Args:
        network: any network of one tensor in. It is cut behind the last layer that is read (:func:`read_layers`).
        layers: names of its submodules to read, in the order in which the maps are returned. None: the network returns
            a list of maps itself.
        mean: mean of each network channel in its training, for intensities in [0, 1]; its length is the number of
            network channels.
        std: deviation of each network channel, positive.
        in_channels: channels C of an image: 1 (default), which is repeated for all network channels, or their number.
        compat: None (default), or ``"upd"``: batch statistics adapt while training, as those of the feature
            autoencoder in the study of Lagogiannis et al., IEEE TMI 2023, do, whose code trains the whole model.

    Attributes:
        num_channels: channels C_i of each map.
        source: ``name`` and ``sha256`` of the weights, empty where nobody has recorded them.

    Raises:
        ValueError: when a layer, the channels, mean, deviation or ``compat`` do not fit.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.blocks import FeatureExtractor
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 16, 3, 2, 1))
        >>> extractor = FeatureExtractor(network, ["0", "1"], mean=[0.5] * 3, std=[0.25] * 3)
        >>> [tuple(features.shape) for features in extractor(torch.zeros(2, 1, 32, 32))], extractor.num_channels
        ([(2, 8, 16, 16), (2, 16, 8, 8)], (8, 16))
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] | None,
        mean: Sequence[float],
        std: Sequence[float],
        in_channels: int = 1,
        compat: str | None = None,
    ) -> None:
        super().__init__()
        if compat not in (None, "upd"):
            raise ValueError(f"compat must be None or 'upd', got {compat!r}")
        if in_channels not in (1, len(mean)):
            raise ValueError(
                f"the network works on {len(mean)} channels, so in_channels must be 1, which is repeated, or "
                f"{len(mean)}, got {in_channels!r}: choose or average channels of the images before"
            )
        _check_scale(mean, std)
        self.in_channels = in_channels
        self.compat = compat
        self.layers = None if layers is None else tuple(layers)
        self.source: dict[str, str] = {"name": "", "sha256": ""}
        network.eval()
        self.network = network if layers is None else read_layers(network, layers)
        axes = _spatial_axes(self.network)
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * axes))
        self.num_channels = _num_channels(self.network, len(mean), axes)
        self.train(self.training)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps of images.

        Args:
            image: (B, C, *S), in [-1, 1].

        Returns:
            a map (B, C_i, *S_i) for each layer.

        Raises:
            ValueError: when the images have another number of channels.
        """
        if not torch.jit.is_tracing() and image.shape[1] != self.in_channels:
            raise ValueError(
                f"the feature extractor takes {self.in_channels} channels, got images of shape {tuple(image.shape)}: "
                f"build it with in_channels={image.shape[1]}, which must be 1 or {self.mean.shape[0]}"
            )
        self._stay_frozen()
        scaled = ((plain_tensor(image) + 1) / 2 - self.mean) / self.std  # broadcasting repeats a single channel
        return list(self.network(scaled))

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Set the mode of training, which changes nothing but, with ``compat="upd"``, the batch statistics."""
        super().train(mode)
        self._stay_frozen()
        return self

    def _stay_frozen(self) -> None:
        """Undo what was set on parts of the network past :meth:`train`."""
        if any(parameter.requires_grad for parameter in self.network.parameters()):
            self.network.requires_grad_(False)
        adapting = self.training and self.compat == "upd"
        for module in self.network.modules():
            if module.training and not (adapting and isinstance(module, _BatchNorm)):
                module.training = False
            elif adapting and isinstance(module, _BatchNorm):
                module.training = True


def _check_scale(mean: Sequence[float], std: Sequence[float]) -> None:
    finite = all(map(math.isfinite, [*mean, *std]))
    if not mean or len(mean) != len(std) or not finite or min(std) <= 0:
        raise ValueError(
            f"mean and std must have one finite number for each network channel, std positive, got {list(mean)} and "
            f"{list(std)}"
        )


def _spatial_axes(network: nn.Module) -> int:
    """Spatial axes of the images that a network takes: those of its first convolution."""
    for module in network.modules():
        if isinstance(module, _ConvNd):
            return module.weight.ndim - 2
    raise ValueError(f"{type(network).__name__} has no convolution, so it does not show how many axes an image has")


@torch.no_grad()
def _num_channels(network: nn.Module, channels: int, axes: int) -> tuple[int, ...]:
    """Channels of each map: as the network says, or those of an empty image's."""
    told = getattr(network, "num_channels", None)
    if told is not None:
        return tuple(told)
    weight = next(network.parameters())
    maps = network(torch.zeros(1, channels, *[64] * axes, dtype=weight.dtype, device=weight.device))
    return tuple(features.shape[1] for features in maps)
