# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from monai_anomaly.functional import feature_ssim_error
from monai_anomaly.functional.errors import enlarged
from monai_anomaly.inferers import MapInferer
from monai_anomaly.networks.blocks import FeatureOutput
from monai_anomaly.networks.maps import FeatureMap, direction_map, distillation_score, similarity_map


class Halves(nn.Module):
    """Two layers of numbers made of the image, and what a network would make of them."""

    def forward(self, image: Tensor) -> FeatureOutput:
        pool = nn.functional.avg_pool2d if image.ndim == 4 else nn.functional.avg_pool3d
        layers = [torch.cat([x, x.cos(), (3 * x).sin()], 1) for x in (image, pool(image, 2))]
        return FeatureOutput([layer.roll(1, 1) + 0.1 for layer in layers], layers)


class One(Halves):
    """The first of them alone."""

    def forward(self, image: Tensor) -> FeatureOutput:
        made, wanted = super().forward(image)
        return FeatureOutput(made[:1], wanted[:1])


def images(*size: int) -> Tensor:
    return torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("size", [(8, 6), (8, 4, 6)])
def test_directions_differ_place_by_place(size: tuple[int, ...]) -> None:
    image = images(*size)
    made, wanted = Halves()(image)
    layers = []
    for a, b in zip(made, wanted, strict=True):
        distance = np.empty((3, 1, *a.shape[2:]))
        for n, *place in np.ndindex(3, *a.shape[2:]):
            u, v = (x[(n, slice(None), *place)].double().numpy() for x in (a, b))
            distance[(n, 0, *place)] = 1 - sum(u * v) / math.sqrt(sum(u * u) * sum(v * v))
        layers.append(enlarged(torch.tensor(distance), size))
    expected = sum(layers) / 2
    torch.testing.assert_close(FeatureMap(Halves())(image).double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(FeatureMap(Halves(), direction_map)(image).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compat", [None, "upd"])
def test_dissimilarity_is_the_mean_of_the_channels(compat: str | None) -> None:
    image = images(8, 6)
    (made,), (wanted,) = One()(image)
    error = feature_ssim_error(made, wanted, win_size=3, compat=compat)
    network = FeatureMap(One(), partial(similarity_map, win_size=3, compat=compat))
    torch.testing.assert_close(network(image), sum(error[:, c : c + 1] for c in range(3)) / 3)


def test_blur_goes_on_at_the_border() -> None:
    image = images(12, 10)
    plain, blurred = FeatureMap(Halves())(image), FeatureMap(Halves(), blur=1.5)(image)
    for given, found in zip(plain.numpy(), blurred.numpy(), strict=True):
        expected = ndimage.gaussian_filter(given[0], 1.5, mode="nearest")
        np.testing.assert_allclose(found[0], expected, atol=0.02 * expected.max())
    assert "kernel" not in FeatureMap(Halves(), blur=1.5).state_dict()


@pytest.mark.parametrize("compat", [None, "mkd"])
def test_score_of_distillation(compat: str | None) -> None:
    draw = torch.Generator().manual_seed(0)
    made, wanted = ([torch.rand(2, 3, n, n, generator=draw).double() for n in (6, 4, 3, 2)] for _ in range(2))
    score = distillation_score(FeatureOutput(made, wanted), 0.5, compat)
    for image in range(2):
        expected = 0.0
        for a, b in list(zip(made, wanted, strict=True))[1 if compat else 0 :]:
            u, v = a[image].flatten().numpy(), b[image].flatten().numpy()
            expected += 1 - sum(u * v) / math.sqrt(sum(u * u) * sum(v * v)) + 0.5 * sum((u - v) ** 2) / len(u)
        assert score[image].tolist() == pytest.approx([expected])
    with pytest.raises(ValueError, match="compat must be None or 'mkd', got 'upd'"):
        distillation_score(FeatureOutput(made, wanted), compat="upd")


def test_inferer_takes_the_score_of_the_network_or_makes_one_of_the_map() -> None:
    image = images(8, 8)
    network = FeatureMap(Halves())
    result = MapInferer()(image, network)
    torch.testing.assert_close(result["score"], network(image).mean((1, 2, 3))[:, None])
    scored = FeatureMap(Halves(), score_rule=distillation_score)
    result = MapInferer()(image, scored)
    torch.testing.assert_close(result["score"], distillation_score(Halves()(image)))
    torch.testing.assert_close(result["anomaly_map"], network(image))
    with pytest.raises(ValueError, match="blur must be 0 or more pixels, got -1"):
        FeatureMap(Halves(), blur=-1)
