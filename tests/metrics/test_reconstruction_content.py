# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from monai_anomaly.metrics import ReconstructionContent


def pictures(dims: int, count: int = 12, seed: int = 0) -> Tensor:
    """Smooth pictures (N, 1, *S), each with a blob of its own."""
    draw = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 24 if dims == 2 else 16)] * dims, indexing="ij")
    centers = torch.rand(count, dims, generator=draw) - 0.5
    distance = sum(
        (axis[None] - center.view(-1, *[1] * dims)) ** 2 for axis, center in zip(axes, centers.T, strict=True)
    )
    return (2 * torch.exp(-4 * torch.as_tensor(distance)) - 1)[:, None]


def found(images: Tensor, make: Callable[[Tensor], Tensor]) -> list[str]:
    content = ReconstructionContent()
    for image, reconstruction in zip(images, make(images), strict=True):
        content.update(image, reconstruction)
    return content.warnings()


def noise(images: Tensor) -> Tensor:
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(1))


BAD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "flat": (lambda images: torch.full_like(images, 0.3), "hardly any structure"),
    "nearly flat": (lambda images: 0.05 * images, "hardly any structure"),
    "noise": (noise, "look like noise"),
    "faint traces in noise": (lambda images: 0.1 * images + noise(images), "look like noise"),
    "the mean image": (lambda images: images.mean(0, keepdim=True).expand_as(images), "the same for every image"),
}
GOOD: dict[str, Callable[[Tensor], Tensor]] = {
    "perfect": lambda images: images,
    "darker": lambda images: 0.5 * images - 0.3,
    "noisy": lambda images: images + 0.3 * noise(images),
    "blurred": lambda images: 0.7 * images + 0.3 * images.flatten(1).mean(1).view(-1, *[1] * (images.ndim - 1)),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("make", "text"), BAD.values(), ids=BAD.keys())
def test_what_carries_nothing_of_the_image_is_said(dims: int, make: Callable[[Tensor], Tensor], text: str) -> None:
    (sentence,) = found(pictures(dims), make)
    assert text in sentence and "--max_epochs" in sentence


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD.keys())
def test_nothing_is_said_of_a_reconstruction_that_follows_its_image(
    dims: int, make: Callable[[Tensor], Tensor]
) -> None:
    assert found(pictures(dims), make) == []


def test_few_images_may_be_alike() -> None:
    def mean(images: Tensor) -> Tensor:
        return images.mean(0, keepdim=True).expand_as(images)

    assert found(pictures(2, count=7), mean) == []


@pytest.mark.parametrize("images", [torch.zeros(0, 1, 8, 8), torch.ones(9, 1, 8, 8)], ids=["none", "constant"])
def test_images_without_content_tell_nothing(images: Tensor) -> None:
    assert found(images, lambda x: x) == []


def test_channels_are_compared_one_by_one() -> None:
    images = pictures(2).expand(-1, 3, -1, -1).clone()
    images[:, 1] *= -1
    assert found(images, lambda x: x) == []
    assert "noise" in found(images, lambda x: x.roll(1, 1))[0]
