# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Residual networks from their tensors alone, as torchvision and MedicalNet define them: no module of any library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

CONVOLUTION = {2: F.conv2d, 3: F.conv3d}
POOL = {2: F.max_pool2d, 3: F.max_pool3d}


def random_state(
    kind: str, blocks: Sequence[int], channels: int, dims: int, wide: int, shortcut: bool
) -> dict[str, Tensor]:
    """Random tensors in the layout: names and shapes are written down here, not asked from a network."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(65_537, generator=generator)  # drawn once, for speed; of a prime number, no two rows agree
    state: dict[str, Tensor] = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = (2 / (inputs * kernel**dims)) ** 0.5
        count = outputs * inputs * kernel**dims
        drawn = scale * pool.roll(len(state)).repeat(count // len(pool) + 1)[:count]
        state[f"{name}.weight"] = drawn.reshape(outputs, inputs, *[kernel] * dims)

    def norm(name: str, outputs: int) -> None:
        state[f"{name}.weight"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        state[f"{name}.running_mean"] = 0.1 * torch.randn(outputs, generator=generator)
        state[f"{name}.running_var"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", 64, channels, 7)
    norm("bn1", 64)
    inputs = 64
    for stage, count in enumerate(blocks):
        planes = 64 * 2**stage
        outputs = planes if kind == "basic" else 4 * planes
        inner = planes * wide
        for number in range(count):
            name = f"layer{stage + 1}.{number}"
            kernels = [(inner, inputs, 3), (outputs, inner, 3)]
            if kind == "bottleneck":
                kernels = [(inner, inputs, 1), (inner, inner, 3), (outputs, inner, 1)]
            for index, shape in enumerate(kernels, 1):
                convolution(f"{name}.conv{index}", *shape)
                norm(f"{name}.bn{index}", shape[0])
            if shortcut and number == 0 and (stage > 0 or inputs != outputs):
                convolution(f"{name}.downsample.0", outputs, inputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    return state


def stages(state: dict[str, Tensor], image: Tensor, strides: Sequence[int], dilations: Sequence[int]) -> list[Tensor]:
    """Outputs of the stem and the four stages."""
    dims = image.ndim - 2

    def convolve(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = weight.shape[-1] // 2 * dilation
        return CONVOLUTION[dims](x, weight, stride=stride, padding=padding, dilation=dilation)

    def normalize(name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].reshape(-1, *[1] * dims)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def shortcut(name: str, x: Tensor, stride: int, outputs: int) -> Tensor:
        if f"{name}.downsample.0.weight" in state:
            return normalize(f"{name}.downsample.1", convolve(f"{name}.downsample.0", x, stride))
        x = x[:, :, ::stride, ::stride] if dims == 2 else x[:, :, ::stride, ::stride, ::stride]
        return torch.cat([x, torch.zeros(x.shape[0], outputs - x.shape[1], *x.shape[2:])], 1)

    x = POOL[dims](normalize("bn1", convolve("conv1", image, 2)).relu(), 3, 2, 1)
    found = [x]
    for stage, (first, dilation) in enumerate(zip(strides, dilations, strict=True), 1):
        number = 0
        while f"layer{stage}.{number}.conv1.weight" in state:
            name, stride = f"layer{stage}.{number}", first if number == 0 else 1
            if f"{name}.conv3.weight" in state:
                y = normalize(f"{name}.bn1", convolve(f"{name}.conv1", x)).relu()
                y = normalize(f"{name}.bn2", convolve(f"{name}.conv2", y, stride, dilation)).relu()
                y = normalize(f"{name}.bn3", convolve(f"{name}.conv3", y))
            else:
                y = normalize(f"{name}.bn1", convolve(f"{name}.conv1", x, stride, dilation)).relu()
                y = normalize(f"{name}.bn2", convolve(f"{name}.conv2", y, 1, dilation))
            x = (y + shortcut(name, x, stride, y.shape[1])).relu()
            number += 1
        found.append(x)
    return found
