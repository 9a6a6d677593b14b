# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

from ...utils import accept_only_whole_weights, accept_weights_of_wrapper
from ..blocks.memory import MemoryBlock
from ..blocks.outputs import AutoencoderOutput

# in the order in which the image passes them; "code" is the latent vector between the two dense halves
FEATURE_LAYERS = (
    "encoder1",
    "encoder2",
    "encoder3",
    "encoder4",
    "code",
    "bottleneck",
    "decoder3",
    "decoder2",
    "decoder1",
)
_REDUCTION = 16  # four halvings


def _down(dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = Conv[Conv.CONV, dims](in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, Norm[Norm.BATCH, dims](out_channels), nn.ReLU())


def _up(dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(_last_up(dims, in_channels, out_channels), Norm[Norm.BATCH, dims](out_channels), nn.ReLU())


def _last_up(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    convolution = Conv[Conv.CONVTRANS, dims]
    return convolution(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False)


def _dense(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out_features)
    )


class DenseAutoencoder(nn.Module):
    """The convolutional autoencoder with a dense bottleneck of the 64 x 64 benchmarks: AE, MemAE and AE-U by arguments.

    Four strided convolutions, two dense layers down to the code, two up, four transposed convolutions; the last one is
    linear and unbounded. ``memory_slots > 0`` makes it MemAE, ``predict_variance=True`` makes it AE-U.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels C of the image.
        spatial_size: size of the image, each axis divisible by 16 (an integer stands for all axes); the benchmark's is
            64.
        channels: widths of the four levels, (16, 32, 64, 64) in the benchmark.
        hidden_channels: width of the dense layers around the code: 2048 in DDAD and D2UE, 1024 in MedIAnomaly.
        latent_channels: length Z of the code, 16 in the benchmark.
        memory_slots: number of memory slots, 25 in the benchmark; 0 for none.
        shrink_threshold: threshold of the memory's hard shrinkage, 0.0025 in D2UE and MedIAnomaly, 0 in DDAD.
        predict_variance: predict a log-variance for each pixel beside its mean.
        log_variance_limit: the log-variance is held in [-limit, limit], since on a constant background its optimum is
            minus infinity; None leaves it free, as the published code does.
        feature_layer: which layer ``features`` holds, one of :data:`FEATURE_LAYERS`; ``"code"`` in D2UE.

    Raises:
        ValueError: when an argument is outside its range.

    Reference:
        Y. Cai, H. Chen, X. Yang, Y. Zhou, K.-T. Cheng: "Dual-distribution discrepancy with self-supervised refinement
        for anomaly detection in medical images", Medical Image Analysis 2023; Gu et al., MICCAI 2024. MemAE: Gong et
        al., ICCV 2019. AE-U: Mao et al., MICCAI 2020.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> network = DenseAutoencoder(spatial_size=64, hidden_channels=32)
        >>> output = network(torch.zeros(2, 1, 64, 64))
        >>> output.reconstruction.shape, output.code.shape
        (torch.Size([2, 1, 64, 64]), torch.Size([2, 16]))
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        spatial_size: Sequence[int] | int = 64,
        channels: Sequence[int] = (16, 32, 64, 64),
        hidden_channels: int = 2048,
        latent_channels: int = 16,
        memory_slots: int = 0,
        shrink_threshold: float = 0.0025,
        predict_variance: bool = False,
        log_variance_limit: float | None = 10.0,
        feature_layer: str = "code",
    ) -> None:
        super().__init__()
        size = _checked_size(spatial_dims, spatial_size)
        if len(channels) != 4:
            raise ValueError(f"channels must name four levels, got {tuple(channels)}.")
        if feature_layer not in FEATURE_LAYERS:
            raise ValueError(f"feature_layer must be one of {FEATURE_LAYERS}, got {feature_layer!r}.")
        if log_variance_limit is not None and log_variance_limit <= 0:
            raise ValueError(f"log_variance_limit must be positive or None, got {log_variance_limit}.")
        self.in_channels = in_channels
        self.spatial_size = size
        self.feature_index = FEATURE_LAYERS.index(feature_layer)
        self.log_variance_limit = log_variance_limit
        self.predict_variance = predict_variance

        widths = (in_channels, *channels)
        self.encoder = nn.ModuleList(_down(spatial_dims, a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.bottleneck_shape = (channels[-1], *(axis // _REDUCTION for axis in size))
        flat = math.prod(self.bottleneck_shape)
        self.to_code = _dense(flat, hidden_channels, latent_channels)
        self.memory = MemoryBlock(memory_slots, latent_channels, shrink_threshold) if memory_slots else None
        self.from_code = _dense(latent_channels, hidden_channels, flat)
        back = widths[:0:-1]
        self.decoder = nn.ModuleList(_up(spatial_dims, a, b) for a, b in zip(back, back[1:], strict=False))
        self.head = _last_up(spatial_dims, channels[0], in_channels * (2 if predict_variance else 1))
        accept_weights_of_wrapper(self, "network.")  # the name of a network in the map around it
        accept_only_whole_weights(self)
        if spatial_dims == 2:  # the layout that convolutions of few channels run fastest in; values stay the same
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's overloads

    def extra_repr(self) -> str:
        """What distinguishes two of these networks beside their layers."""
        return f"feature_layer={FEATURE_LAYERS[self.feature_index]}, log_variance_limit={self.log_variance_limit}"

    def forward(self, image: Tensor) -> AutoencoderOutput:
        """Reconstruct images.

        Args:
            image: (B, C, *S), C = ``in_channels``, S = ``spatial_size``; at least two images in training mode.

        Returns:
            Named fields, see :class:`AutoencoderOutput`.

        Raises:
            ValueError: when the image has another shape, or there is one only in training mode.
        """
        expected = [self.in_channels] + list(self.spatial_size)
        if list(image.shape[1:]) != expected:
            raise ValueError(
                f"image must be (B, *{expected}), got {list(image.shape)}: resize it to the network's size."
            )
        if self.training and image.shape[0] < 2:
            raise ValueError("batch normalization needs at least two images in a training batch: raise batch_size.")
        x = image
        layers: list[Tensor] = []
        for down in self.encoder:
            x = down(x)
            layers.append(x)
        code = self.to_code(torch.flatten(x, 1))  # (B, Z)
        layers.append(code)
        if self.memory is not None:
            remembered, address = self.memory(code)
        else:
            remembered, address = code, None
        x = torch.reshape(self.from_code(remembered), [image.shape[0]] + list(self.bottleneck_shape))
        layers.append(x)
        for up in self.decoder:
            x = up(x)
            layers.append(x)
        prediction = self.head(x)  # (B, C or 2C, *S)
        features = layers[self.feature_index]
        if not self.predict_variance:
            return AutoencoderOutput(prediction, code, features, address, None)
        mean, log_variance = torch.chunk(prediction, 2, dim=1)
        if self.log_variance_limit is not None:
            log_variance = torch.clamp(log_variance, -self.log_variance_limit, self.log_variance_limit)
        return AutoencoderOutput(mean, code, features, address, log_variance)


def _checked_size(spatial_dims: int, spatial_size: Sequence[int] | int) -> tuple[int, ...]:
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
    size = (spatial_size,) * spatial_dims if isinstance(spatial_size, int) else tuple(spatial_size)
    if len(size) != spatial_dims or any(axis < _REDUCTION or axis % _REDUCTION for axis in size):
        raise ValueError(
            f"spatial_size must have {spatial_dims} axes, each a multiple of {_REDUCTION}, got {spatial_size}."
        )
    return size
