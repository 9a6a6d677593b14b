# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_extractor import SmallExtractor
from torch import Tensor

from monai_anomaly.networks.nets import DenoisingStudent


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_encoder_is_a_resnet_18_and_the_rest_as_wide_as_in_the_paper() -> None:
    with torch.device("meta"):
        network = DenoisingStudent(SmallExtractor([64, 128, 256], [4, 8, 16], in_channels=3).to("meta"))
    # 11,689,512 of torchvision's, without the 513,000 of its classifier
    assert count(network.student.stem) + count(network.student.encoder) == 11_689_512 - 513_000
    assert count(network.student.last) == 0
    blocks = [(512, 512), (128, 64), (256, 128), (512, 256)]
    expected = [9 * (a * b + 3 * b * b) + 8 * b + (a * b + 2 * b) * (a != b) for a, b in blocks]
    assert [count(stage) for stage in (network.student.bottom, *network.student.decoder)] == expected
    (first, _), pyramid = network.head.residual, network.head.pyramid
    assert first.conv1.in_channels == 448 and first.conv1.out_channels == 256
    assert [branch.conv.dilation for branch in pyramid.branches] == [(1, 1), (6, 6), (12, 12), (18, 18)]


class Functions:
    """The network again from its tensors, in the order in which they are used, by functions alone."""

    def __init__(self, network: DenoisingStudent) -> None:
        self.state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}

    def tensors(self, name: str) -> list[Tensor]:
        return [value for key, value in self.state.items() if key.startswith(name)]

    def unit(self, x: Tensor, conv: str, norm: str, stride: int = 1, padding: int = 1) -> Tensor:
        (weight,), (scale, shift, mean, variance) = self.tensors(conv), self.tensors(norm)
        return F.batch_norm(F.conv2d(x, weight, None, stride, padding), mean, variance, scale, shift)

    def stage(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        for block in (f"{name}.0.", f"{name}.1."):
            inner = self.unit(x, f"{block}conv1", f"{block}bn1", stride).relu()
            inner = self.unit(inner, f"{block}conv2", f"{block}bn2")
            if self.tensors(f"{block}downsample"):
                x = self.unit(x, f"{block}downsample.0", f"{block}downsample.1", stride, 0)
            x, stride = (inner + x).relu(), 1
        return x

    def student(self, image: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        x = F.max_pool2d(self.unit(image, "student.stem.0", "student.stem.1", 2, 3).relu(), 3, 2, 1)
        for number in range(len(sizes) + 1):
            x = self.stage(x, f"student.encoder.{number}", 2 if number else 1)
        x = self.stage(x, "student.bottom")
        maps = []
        for level in reversed(range(len(sizes))):
            x = F.interpolate(x, sizes[level], mode="bilinear", align_corners=False)
            x = self.stage(x, f"student.decoder.{level}")
            last = self.tensors(f"student.last.{level}.")
            maps.append(F.conv2d(x, *last) if last else x)
        return maps[::-1]

    def head_input(self, made: list[Tensor], wanted: list[Tensor]) -> Tensor:
        size = wanted[0].shape[2:]
        parts = []
        for a, b in zip(made, wanted, strict=True):
            unit = a / a.square().sum(1, keepdim=True).sqrt() * b / b.square().sum(1, keepdim=True).sqrt()
            parts.append(F.interpolate(unit, size, mode="bilinear", align_corners=False))
        return torch.cat(parts, 1)


def randomized(network: DenoisingStudent) -> DenoisingStudent:
    draw = torch.Generator().manual_seed(2)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data += 0.1 * torch.rand(tensor.shape, generator=draw)
    return network


@pytest.mark.parametrize(("signed", "channels"), [(False, [4, 8]), (True, [4, 8]), (False, [3, 5])])
def test_maps_and_logits_are_those_of_the_formulas(signed: bool, channels: list[int]) -> None:
    torch.manual_seed(0)
    extractor = SmallExtractor(channels, [4, 8])
    network = randomized(DenoisingStudent(extractor, width=4, head_width=3, dilations=[1, 2], signed=signed)).eval()
    image = torch.rand(2, 1, 32, 40)
    output = network(image)
    by_hand = Functions(network)
    expected = by_hand.student(image, [(8, 10), (4, 5)])
    for made, wanted in zip(output.prediction, expected, strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    assert (min(float(made.detach().min()) for made in output.prediction) < 0) is (signed or channels == [3, 5])
    assert all(torch.equal(a, b) for a, b in zip(output.target, extractor(image), strict=True))
    x = by_hand.stage(by_hand.head_input(expected, extractor(image)), "head.residual")
    x = by_hand.unit(network.head.pyramid(x), "head.last.0", "head.last.1").relu()
    logits = F.conv2d(x, *by_hand.tensors("head.last.3"))
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "steps"), [((37, 50), (1, 4, 4)), ((32, 20, 33), (2, 2, 8))])
def test_maps_of_any_size_are_made(size: tuple[int, ...], steps: tuple[int, ...]) -> None:
    extractor = SmallExtractor([2, 3, 4], steps, len(size), in_channels=3)
    output = DenoisingStudent(extractor, len(size), 2, 2, [1], signed=True).eval()(torch.rand(2, 3, *size))
    assert [made.shape for made in output.prediction] == [wanted.shape for wanted in output.target]
    assert output.logits.shape == (2, 1, *output.target[0].shape[2:])


def small() -> tuple[DenoisingStudent, Tensor, Tensor]:
    torch.manual_seed(0)
    network = DenoisingStudent(SmallExtractor([2, 3], [4, 8]), width=2, head_width=2, dilations=[1], signed=True)
    return network.train(), torch.rand(3, 1, 32, 32), torch.rand(3, 1, 32, 32)


def changed_by_a_step(network: DenoisingStudent, value: Tensor) -> set[str]:
    """Parts whose parameters a step of an optimizer moves; with momentum and decay, should something be left."""
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    moved = {name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])}
    return {name.split(".")[0] for name in moved}


def test_in_the_first_stage_the_student_learns_what_the_teacher_sees_of_the_clean_image() -> None:
    network, image, clean = small()
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    output = network(image, clean)
    assert output.logits is None and output.head_trained is None
    assert all(torch.equal(a, b) for a, b in zip(output.target, network.extractor(clean), strict=True))
    assert changed_by_a_step(network, sum(made.square().sum() for made in output.prediction)) == {"student"}
    changed = {n.split(".")[0] for n, buffer in network.named_buffers() if not torch.equal(buffer, statistics[n])}
    assert changed == {"student"}


def test_in_the_second_stage_the_head_learns_and_both_see_the_corrupted_image() -> None:
    network, image, clean = small()
    network.begin_stage(1)
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    output = network(image, clean)
    assert all(torch.equal(a, b) for a, b in zip(output.target, network.extractor(image), strict=True))
    assert bool(output.head_trained) and not any(made.requires_grad for made in output.prediction)
    network.eval()
    for made, wanted in zip(output.prediction, network(image).prediction, strict=True):
        assert torch.equal(made, wanted)  # the student as it is, with the statistics that it has
    assert changed_by_a_step(network.train(), output.logits.square().sum()) == {"head"}
    changed = {n.split(".")[0] for n, buffer in network.named_buffers() if not torch.equal(buffer, statistics[n])}
    assert changed == {"head"}


def test_the_stage_comes_with_the_weights() -> None:
    network, image, _ = small()
    network.begin_stage(1)
    other = small()[0]
    other.load_state_dict(network.state_dict())
    other.train()
    assert other.head.training and not other.student.training
    assert other(image).logits is not None


def test_what_does_not_fit_is_refused() -> None:
    for widths in ({"width": 0}, {"head_width": 0}):
        with pytest.raises(ValueError, match="width and head_width must be at least 1"):
            DenoisingStudent(SmallExtractor([2], [4]), **widths)


@pytest.mark.parametrize("stage", [0, 1])
def test_one_image_alone_is_refused_before_a_stage_was_trained_in_vain(stage: int) -> None:
    network, image, clean = small()
    network.begin_stage(stage)
    with pytest.raises(ValueError, match="batches of two images or more"):
        network.train()(image[:1], clean[:1])
    assert network.eval()(image[:1]).logits is not None
