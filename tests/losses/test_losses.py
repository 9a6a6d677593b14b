# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from monai_anomaly.functional import cka, cosine_similarity, l1_error, ssim_error
from monai_anomaly.losses import (
    AddressEntropyLoss,
    HeteroscedasticLoss,
    ReconstructionLoss,
    RepulsionLoss,
    WeightedSumLoss,
)
from monai_anomaly.networks.blocks import AutoencoderOutput, EnsembleOutput

GENERATOR = torch.Generator().manual_seed(0)
TARGET = torch.randn(3, 2, 4, 5, generator=GENERATOR, dtype=torch.float64)
SENIORS = torch.randn(2, 3, 6, generator=GENERATOR, dtype=torch.float64)


def _output() -> AutoencoderOutput:
    """What a network with every field returns, with gradient."""
    generator = torch.Generator().manual_seed(1)
    mean, log_variance = (torch.randn(TARGET.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    features = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    address = torch.randn(3, 7, generator=generator, dtype=torch.float64).softmax(1)
    fields = [tensor.requires_grad_() for tensor in (mean, features, features, address, log_variance)]
    return AutoencoderOutput(*fields)


def _pixels() -> Iterator[tuple[int, ...]]:
    return product(*map(range, TARGET.shape))


def test_reconstruction_loss() -> None:
    output = _output()
    value = ReconstructionLoss()(output, TARGET)
    squares = [(float(output.reconstruction[i].detach()) - float(TARGET[i])) ** 2 for i in _pixels()]
    assert float(value.detach()) == pytest.approx(sum(squares) / len(squares), abs=1e-12)
    (gradient,) = torch.autograd.grad(value, output.reconstruction)
    torch.testing.assert_close(gradient, 2 * (output.reconstruction.detach() - TARGET) / len(squares))
    assert float(ReconstructionLoss(reduction="sum")(output, TARGET).detach()) == pytest.approx(sum(squares), abs=1e-9)
    assert ReconstructionLoss(reduction="none")(output, TARGET).shape == TARGET.shape
    differences = [math.sqrt(s) for s in squares]
    assert float(ReconstructionLoss(l1_error)(output, TARGET).detach()) == pytest.approx(
        sum(differences) / len(squares)
    )


def test_reconstruction_loss_by_structural_similarity() -> None:
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    output = AutoencoderOutput(image.clone().requires_grad_(), image, image)
    loss = ReconstructionLoss(ssim_error)
    assert float(loss(output, image).detach()) == pytest.approx(0, abs=1e-5)
    value = loss(output, image.flip(-1))
    assert float(value.detach()) == pytest.approx(float(ssim_error(image, image.flip(-1)).mean()), abs=1e-6)
    (gradient,) = torch.autograd.grad(value, output.reconstruction)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0


def test_heteroscedastic_loss() -> None:
    output = _output()
    assert output.log_variance is not None
    value = HeteroscedasticLoss()(output, TARGET)
    terms, by_mean, by_variance = [], [], []
    for i in _pixels():
        mu, s, x = float(output.reconstruction[i].detach()), float(output.log_variance[i].detach()), float(TARGET[i])
        terms.append(math.exp(-s) * (x - mu) ** 2 + s)
        by_mean.append(-2 * math.exp(-s) * (x - mu) / TARGET.numel())
        by_variance.append((1 - math.exp(-s) * (x - mu) ** 2) / TARGET.numel())
    assert float(value.detach()) == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    gradients = torch.autograd.grad(value, (output.reconstruction, output.log_variance))
    for gradient, expected in zip(gradients, (by_mean, by_variance), strict=True):
        torch.testing.assert_close(gradient.flatten(), torch.tensor(expected, dtype=torch.float64))
    assert HeteroscedasticLoss("none")(output, TARGET).shape == TARGET.shape
    with pytest.raises(ValueError, match="predict_variance=True"):
        HeteroscedasticLoss()(output._replace(log_variance=None), TARGET)


def test_address_entropy_loss() -> None:
    output = _output()
    assert output.address is not None
    rows = [-sum(a * math.log(a) for a in row) for row in output.address.detach().tolist()]
    value = AddressEntropyLoss()(output, TARGET)
    assert float(value.detach()) == pytest.approx(sum(rows) / 3, abs=1e-9)
    torch.testing.assert_close(
        AddressEntropyLoss("none")(output, TARGET).detach(), torch.tensor(rows, dtype=torch.float64)
    )
    (gradient,) = torch.autograd.grad(value, output.address)
    torch.testing.assert_close(gradient, -(output.address.detach().log() + 1) / 3)
    # slots that shrinkage emptied add nothing, and one slot alone is no uncertainty
    sparse = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], requires_grad=True)
    entropy = AddressEntropyLoss("none")(output._replace(address=sparse), TARGET)
    assert entropy.tolist() == pytest.approx([0, math.log(2)], abs=1e-6)
    assert bool(torch.isfinite(torch.autograd.grad(entropy.sum(), sparse)[0]).all())
    with pytest.raises(ValueError, match="memory_slots > 0"):
        AddressEntropyLoss()(output._replace(address=None), TARGET)


@pytest.mark.parametrize("loss", [ReconstructionLoss, HeteroscedasticLoss, AddressEntropyLoss])
def test_unknown_reduction(loss: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"\('mean', 'sum', 'none'\), got 'max'"):
        loss(reduction="max")


def _slow_cka(p: Tensor, q: Tensor) -> Tensor:
    h = torch.eye(len(p), dtype=p.dtype) - 1 / len(p)
    k, l = h @ p @ p.T @ h, h @ q @ q.T @ h  # noqa: E741
    return (k * l).sum() / ((k * k).sum().sqrt() * (l * l).sum().sqrt())


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 3.0])
def test_repulsion_loss(weight: float) -> None:
    output = _output()
    value = RepulsionLoss(ReconstructionLoss(), weight=weight)(EnsembleOutput(output, SENIORS), TARGET)
    expected = (output.reconstruction - TARGET).square().mean()
    expected = expected + weight * (_slow_cka(SENIORS[0], output.features) + _slow_cka(SENIORS[1], output.features)) / 2
    torch.testing.assert_close(value, expected)
    fields = (output.reconstruction, output.features)
    gradients = torch.autograd.grad(value, fields, allow_unused=True)
    references = torch.autograd.grad(expected, fields)
    torch.testing.assert_close(gradients[0], references[0])
    torch.testing.assert_close(torch.zeros_like(references[1]) if gradients[1] is None else gradients[1], references[1])


def test_repulsion_of_the_first_member_is_its_own_loss() -> None:
    output = _output()
    value = RepulsionLoss(HeteroscedasticLoss(), weight=5.0)(EnsembleOutput(output), TARGET)
    assert torch.equal(value, HeteroscedasticLoss()(output, TARGET))


def test_repulsion_by_another_similarity() -> None:
    output = _output()
    value = RepulsionLoss(ReconstructionLoss(), cosine_similarity, 2.0)(EnsembleOutput(output, SENIORS), TARGET)
    likeness = [cosine_similarity(senior, output.features) for senior in SENIORS]
    torch.testing.assert_close(value, ReconstructionLoss()(output, TARGET) + likeness[0] + likeness[1])
    assert not torch.allclose(
        value, RepulsionLoss(ReconstructionLoss(), cka, 2.0)(EnsembleOutput(output, SENIORS), TARGET)
    )
    with pytest.raises(ValueError, match="negative, got -1"):
        RepulsionLoss(ReconstructionLoss(), weight=-1.0)


def test_weighted_sum_loss() -> None:
    """MemAE: squared error and 0.0002 times the entropy of the addresses."""
    output = _output()
    value = WeightedSumLoss([ReconstructionLoss(), AddressEntropyLoss()], [1.0, 0.0002])(output, TARGET)
    expected = ReconstructionLoss()(output, TARGET) + 0.0002 * AddressEntropyLoss()(output, TARGET)
    torch.testing.assert_close(value, expected)
    fields = (output.reconstruction, output.address)
    for gradient, reference in zip(
        torch.autograd.grad(value, fields), torch.autograd.grad(expected, fields), strict=True
    ):
        torch.testing.assert_close(gradient, reference)
    for losses, weights in (([ReconstructionLoss()], [1.0, 2.0]), ([], [])):
        with pytest.raises(ValueError, match=f"got {len(losses)} and {len(weights)}"):
            WeightedSumLoss(losses, weights)


def test_losses_of_functions_with_bound_arguments_can_be_told_apart() -> None:
    narrow = ReconstructionLoss(partial(ssim_error, win_size=7))
    assert "error=ssim_error(win_size=7)" in str(narrow) and str(narrow) != str(ReconstructionLoss(ssim_error))
    assert "similarity=cka, weight=0.5" in str(RepulsionLoss(narrow, weight=0.5))
    assert "similarity=PairwiseDistance" in str(RepulsionLoss(narrow, nn.PairwiseDistance()))
