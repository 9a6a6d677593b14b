# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from small_extractor import SmallExtractor
from torch import Tensor

from monai_anomaly.networks.nets import ReverseDistillation


def test_parameters_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        network = ReverseDistillation(SmallExtractor([256, 512, 1024], [4, 8, 16]).to("meta"), [64, 64])
    sizes = [sum(p.numel() for p in part.parameters()) for part in (network.stages, network.fusion, network.embedding)]
    assert sizes[0] == 24_917_504  # the decoder, 24.92 M in the study of Lagogiannis et al.
    # 67.28 M there, with a convolution that their code makes and never asks
    assert sizes[1] + sizes[2] + 4096 * 2048 == 67_273_728


class Functions:
    """The network again from its tensors, in the order in which they are used, by functions alone."""

    def __init__(self, network: ReverseDistillation) -> None:
        self.state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}

    def tensors(self, name: str) -> Iterator[Tensor]:
        return (self.state[key] for key in self.state if key.startswith(name))

    @staticmethod
    def norm(x: Tensor, given: Iterator[Tensor]) -> Tensor:
        weight, bias, mean, variance = (next(given) for _ in range(4))
        return F.batch_norm(x, mean, variance, weight, bias)

    def fused(self, maps: list[Tensor], strides: list[int]) -> Tensor:
        joined = []
        for level, x in enumerate(maps):
            given = self.tensors(f"fusion.{level}.")
            for stride in strides[level:]:
                x = self.norm(F.conv2d(x, next(given), stride=stride, padding=1), given).relu()
            joined.append(x)
        return torch.cat(joined, 1)

    def block(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """Bottleneck of the library's names."""
        inner = self.norm(F.conv2d(x, self.state[f"{name}.conv1.weight"]), self.tensors(f"{name}.bn1.")).relu()
        inner = F.conv2d(inner, self.state[f"{name}.conv2.weight"], stride=stride, padding=1)
        inner = self.norm(inner, self.tensors(f"{name}.bn2.")).relu()
        inner = self.norm(F.conv2d(inner, self.state[f"{name}.conv3.weight"]), self.tensors(f"{name}.bn3."))
        down = self.tensors(f"{name}.downsample.")
        if f"{name}.downsample.0.weight" in self.state:
            x = self.norm(F.conv2d(x, next(down), stride=stride), down)
        return (inner + x).relu()

    def enlarged(self, x: Tensor, name: str, stride: int) -> Tensor:
        given, other = self.tensors(f"{name}.residual."), self.tensors(f"{name}.shortcut.")
        inner = self.norm(F.conv2d(x, next(given)), given).relu()
        inner = self.norm(F.conv_transpose2d(inner, next(given), stride=stride), given).relu()
        inner = self.norm(F.conv2d(inner, next(given)), given)
        return (inner + self.norm(F.conv_transpose2d(x, next(other), stride=stride), other)).relu()


@pytest.mark.parametrize("signed", [False, True])
def test_maps_are_those_of_the_formulas(signed: bool) -> None:
    torch.manual_seed(0)
    extractor = SmallExtractor([4, 8, 8], [2, 4, 4])
    network = ReverseDistillation(extractor, [16, 16], blocks=[1, 2, 1], signed=signed)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data += 0.1 * torch.rand(tensor.shape)
    image = torch.rand(2, 1, 16, 16)
    maps = extractor(image)
    by_hand = Functions(network)
    x = by_hand.block(by_hand.fused(maps, [2, 1]), "embedding.0", 2)
    for number in (1, 2):
        x = by_hand.block(x, f"embedding.{number}")
    assert x.shape == (2, 16, 2, 2)
    expected = []
    for stage, (stride, blocks) in enumerate([(2, 1), (1, 2), (2, 1)]):
        x = by_hand.enlarged(x, f"stages.{stage}.0", stride)
        for number in range(1, blocks):
            x = by_hand.block(x, f"stages.{stage}.{number}")
        last = list(by_hand.tensors(f"last.{stage}."))
        expected.append(F.conv2d(x, *last) if signed else x)
    output = network.eval()(image)
    for made, wanted in zip(output.prediction, expected[::-1], strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    assert (min(float(made.min()) for made in output.prediction) < 0) is signed


@pytest.mark.parametrize(("size", "steps"), [((9, 14), (1, 2, 4)), ((8, 12, 5), (1, 2, 2)), ((6, 6), (2, 2, 2))])
def test_maps_of_any_size_are_rebuilt(size: tuple[int, ...], steps: tuple[int, ...]) -> None:
    extractor = SmallExtractor([4, 4, 8], steps, len(size), in_channels=3)
    output = ReverseDistillation(extractor, size, [1, 1, 1])(torch.rand(3, 3, *size))
    assert [made.shape for made in output.prediction] == [wanted.shape for wanted in output.target]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks must be 2 positive numbers, one for each map"):
        ReverseDistillation(SmallExtractor([4, 4], [1, 2]), [8, 8])
    with pytest.raises(ValueError, match=r"must be divisible by 4, got \[4, 6\]"):
        ReverseDistillation(SmallExtractor([4, 6], [1, 2]), [8, 8], [1, 1])
    with pytest.raises(ValueError, match="from the shallowest to the deepest"):
        ReverseDistillation(SmallExtractor([4, 4], [2, 1]), [8, 8], [1, 1])
