# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_extractor import SmallExtractor

from monai_anomaly.networks.nets import MultiscaleDistillation

# the student of the paper: channels of convolutions, and maxima, of which the last four are compared
PAPER = [16, 16, "M", 16, 128, "M", 16, 16, 256, "M", 16, 16, 512, "M", 16, 16, 512, "M"]


@pytest.mark.parametrize("signed", [False, True])
def test_student_of_the_paper_layer_by_layer(signed: bool) -> None:
    torch.manual_seed(0)
    extractor = SmallExtractor([128, 256, 512, 512], [4, 8, 16, 32], in_channels=3)
    network = MultiscaleDistillation(extractor, [32, 64], signed=signed).eval()
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in learned) == 343_984  # 0.344 M
    x = image = torch.randn(2, 3, 32, 64)
    weights, maps = iter(learned), []
    for place, kind in enumerate(PAPER):
        if kind == "M":
            x = F.max_pool2d(x, 2)
            maps.append(x)
            continue
        x = F.conv2d(x, next(weights), padding=1)
        if PAPER[place + 1] != "M":  # fresh statistics: nothing but the constant of the normalization
            x = F.relu(x / (1 + 1e-5) ** 0.5 * next(weights)[:, None, None] + next(weights)[:, None, None])
        elif not signed or kind == 16:
            x = F.relu(x)
    assert next(weights, None) is None
    for made, expected in zip(network(image).prediction, maps[1:], strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "steps"), [((9, 14), (2, 4, 4)), ((8, 12, 5), (1, 2, 4))])
def test_maps_of_any_size_are_made(size: tuple[int, ...], steps: tuple[int, ...]) -> None:
    extractor = SmallExtractor([2, 3, 4], steps, len(size))
    output = MultiscaleDistillation(extractor, size, width=4, signed=True)(torch.rand(2, 1, *size))
    assert [made.shape for made in output.prediction] == [wanted.shape for wanted in output.target]
    assert min(float(made.min()) for made in output.prediction) < 0


def test_the_image_is_what_the_student_sees() -> None:
    extractor = SmallExtractor([2], [2])
    network = MultiscaleDistillation(extractor, [8, 8], width=4).eval()
    image, other = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    given = extractor(other)
    output = network(image, given)
    assert torch.equal(output.target[0], given[0])
    assert torch.equal(output.prediction[0], network(image).prediction[0])


def test_sizes_that_do_not_come_of_halving_are_refused() -> None:
    with pytest.raises(ValueError, match=r"come of halving the \(10, 10\) places"):
        MultiscaleDistillation(SmallExtractor([2], [3]), [10, 10])
    with pytest.raises(ValueError, match="from the shallowest to the deepest"):
        MultiscaleDistillation(SmallExtractor([2, 2], [2, 1]), [8, 8])
