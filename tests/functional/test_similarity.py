# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from monai_anomaly.functional import (
    cka,
    cosine_similarity,
    euclidean_similarity,
    hsic,
    manhattan_similarity,
    no_similarity,
    pearson_similarity,
)

# few features, few samples, equal, feature maps, feature volumes, different widths
SHAPES = [
    ((64, 16), (64, 16)),
    ((7, 40), (7, 40)),
    ((16, 16), (16, 16)),
    ((6, 3, 4, 5), (6, 3, 4, 5)),
    ((5, 2, 3, 2, 4), (5, 2, 3, 2, 4)),
    ((30, 4), (30, 50)),
    ((9, 25), (9, 2, 3)),
    ((2, 3), (2, 3)),
]


def _pair(shapes: tuple[tuple[int, ...], tuple[int, ...]], seed: int = 0, offset: float = 0.5) -> tuple[Tensor, Tensor]:
    """Features that share a part of what they vary by, and are not centered."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(shape, generator=generator) + offset for shape in shapes)
    common = torch.randn(shapes[0][0], generator=generator)
    p = p + common.reshape(-1, *[1] * (p.ndim - 1))
    return p, q - common.reshape(-1, *[1] * (q.ndim - 1))


def slow_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """Eq. 3 with the centering matrix written out."""
    samples = len(k)
    h = torch.eye(samples, dtype=k.dtype) - torch.ones(samples, samples, dtype=k.dtype) / samples
    return torch.trace(k @ h @ l @ h) / (samples - 1) ** 2


def slow_cka(p: Tensor, q: Tensor) -> Tensor:
    """Eq. 2 of the Gram matrices, in double precision."""
    p, q = p.double().flatten(1), q.double().flatten(1)
    k, l = p @ p.T, q @ q.T  # noqa: E741
    return slow_hsic(k, l) / (slow_hsic(k, k).sqrt() * slow_hsic(l, l).sqrt())


def _orthogonal(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[
        0
    ]


@pytest.mark.parametrize("shapes", SHAPES)
def test_hsic_is_the_centered_trace(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    p, q = (features.double().flatten(1) for features in _pair(shapes))
    k, l = p @ p.T, q @ q.T  # noqa: E741
    torch.testing.assert_close(hsic(k, l), slow_hsic(k, l), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hsic(k, l), hsic(l, k), rtol=1e-12, atol=1e-12)
    # asymmetric arguments too, because the trace is defined for any
    a, b = torch.rand_like(k), torch.rand_like(k)
    torch.testing.assert_close(hsic(a, b.T), slow_hsic(a, b), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shapes", SHAPES)
def test_cka_is_its_definition(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    p, q = _pair(shapes)
    value = cka(p, q)
    assert value.dtype == torch.float32 and value.shape == ()
    assert float(value) == pytest.approx(float(slow_cka(p, q)), abs=1e-6)
    assert float(cka(q, p)) == pytest.approx(float(value), abs=1e-6)
    assert -1e-6 <= float(value) <= 1 + 1e-6
    assert float(cka(p.double(), q.double())) == pytest.approx(float(slow_cka(p, q)), abs=1e-12)


@pytest.mark.parametrize("samples", [4, 12, 13, 14, 20, 40])
def test_gram_and_feature_forms_agree(samples: int) -> None:
    # with 5 and 8 features the cheaper form changes near 10 samples; padding with zeros moves that border only
    p, q = _pair(((samples, 5), (samples, 8)))
    padded = torch.cat([p, torch.zeros(samples, 60)], 1)
    assert float(cka(p, q)) == pytest.approx(float(cka(padded, q)), abs=1e-6)


@pytest.mark.parametrize("shapes", SHAPES)
def test_cka_gradient(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    p, q = (features.requires_grad_() for features in _pair(shapes, seed=3))
    expected = torch.autograd.grad(slow_cka(p, q), (p, q))
    for gradient, reference in zip(torch.autograd.grad(cka(p, q), (p, q)), expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-6)


def test_cka_gradcheck() -> None:
    p, q = (features.double().requires_grad_() for features in _pair(((6, 3), (6, 9))))
    assert torch.autograd.gradcheck(cka, (p, q))


@pytest.mark.parametrize("scale", [1e-12, 1e-3, -2.0, 1e12])
@pytest.mark.parametrize("shape", [(64, 16), (7, 40)])
def test_cka_ignores_scale_and_rotation(shape: tuple[int, int], scale: float) -> None:
    p, q = _pair((shape, shape))
    rotated = ((p.double() @ _orthogonal(shape[1], 1)) * scale).float()
    assert float(cka(p, rotated)) == pytest.approx(1, abs=1e-5)
    assert float(cka(rotated, q)) == pytest.approx(float(slow_cka(p, q)), abs=1e-5)
    scaled = (p * scale).requires_grad_()
    (gradient,) = torch.autograd.grad(cka(scaled, q), scaled)
    reference = p.clone().requires_grad_()
    (expected,) = torch.autograd.grad(slow_cka(reference, q), reference)
    torch.testing.assert_close(gradient * scale, expected, rtol=1e-3, atol=1e-6)


def test_cka_is_not_invariant_to_any_linear_map() -> None:
    p, q = _pair(((64, 16), (64, 16)))
    stretched = p * torch.logspace(-1, 1, 16)
    assert abs(float(cka(stretched, q)) - float(cka(p, q))) > 0.01


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_cka_of_features_far_from_zero(offset: float) -> None:
    p, q = _pair(((32, 8), (32, 8)), offset=offset)
    # the trace of uncentered matrices loses its digits even in double precision
    expected = slow_cka(p.double() - offset, q.double() - offset)
    assert float(cka(p, q)) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, 3.3, -1e6])
@pytest.mark.parametrize("samples", [2, 7, 10, 64])
def test_constant_features_share_nothing(level: float, samples: int) -> None:
    p = torch.full((samples, 16), level, requires_grad=True)
    q = torch.randn(samples, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for first, second in ((p, q), (q, p), (p, torch.full((samples, 5), 0.7, requires_grad=True))):
        value = cka(first, second)
        assert float(value.detach()) == 0
        assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(value, (first, second)))


def test_independent_gaussians() -> None:
    """The estimator is biased: 64 samples of 16 features give about .20 by chance, roughly D / (B - 1 + D)."""
    generator = torch.Generator().manual_seed(0)
    values = [
        float(cka(torch.randn(64, 16, generator=generator), torch.randn(64, 16, generator=generator)))
        for _ in range(200)
    ]
    assert sum(values) / 200 == pytest.approx(0.20, abs=0.01)
    assert sum(values) / 200 == pytest.approx(16 / (63 + 16), abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(dtype: torch.dtype) -> None:
    p, q = (features.to(dtype).requires_grad_() for features in _pair(((64, 16), (64, 16))))
    value = cka(p, q)
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(slow_cka(p.detach(), q.detach())), abs=1e-6)
    (gradient,) = torch.autograd.grad(value, p)
    assert gradient.dtype == dtype and bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0
    # squares of these leave the range of half precision
    assert float(cka(p.detach() * 200, q.detach() * 200)) == pytest.approx(float(value.detach()), abs=2e-2)


def slow_mean(p: Tensor, q: Tensor, one: Callable[[list[float], list[float]], float]) -> float:
    rows = zip(p.double().flatten(1).tolist(), q.double().flatten(1).tolist(), strict=True)
    values = [one(a, b) for a, b in rows]
    return sum(values) / len(values)


def _cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5)


def _pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    return _cosine([x - mean_a for x in a], [y - mean_b for y in b])


def _exp(value: float) -> float:
    return 2.718281828459045**-value


PER_SAMPLE: dict[Callable[[Tensor, Tensor], Tensor], Callable[[list[float], list[float]], float]] = {
    euclidean_similarity: lambda a, b: _exp(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5),
    manhattan_similarity: lambda a, b: _exp(sum(abs(x - y) for x, y in zip(a, b, strict=True))),
    cosine_similarity: _cosine,
    pearson_similarity: _pearson,
    no_similarity: lambda a, b: 0.0,
}


@pytest.mark.parametrize("function", PER_SAMPLE)
@pytest.mark.parametrize("shape", [(8, 4), (5, 2, 3, 3)])
def test_per_sample_similarities(function: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
    p, q = (0.3 * features for features in _pair((shape, shape)))
    value = function(p, q)
    assert value.shape == ()
    assert float(value) == pytest.approx(slow_mean(p, q, PER_SAMPLE[function]), abs=1e-6)


@pytest.mark.parametrize(
    "function", [euclidean_similarity, manhattan_similarity, cosine_similarity, pearson_similarity]
)
def test_per_sample_gradients(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    p, q = (features.double().requires_grad_() for features in _pair(((4, 5), (4, 5))))
    assert torch.autograd.gradcheck(function, (p, q))
    # equal features are where a distance has no derivative: a finite one is needed
    same = torch.randn(4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(same, same.detach().clone()), same)
    assert bool(torch.isfinite(gradient).all())


# the check marks of Table 3: invariant to isotropic scaling, to orthogonal transformation
TABLE_3 = [
    (euclidean_similarity, False, False),
    (manhattan_similarity, False, False),
    (cosine_similarity, True, False),
    (pearson_similarity, True, False),
    (cka, True, True),
]


@pytest.mark.parametrize(("function", "scaling", "orthogonal"), TABLE_3)
def test_invariances_of_table_3(function: Callable[[Tensor, Tensor], Tensor], scaling: bool, orthogonal: bool) -> None:
    p, q = (0.3 * features.double() for features in _pair(((32, 6), (32, 6)), seed=5))
    value = float(function(p, q))
    scaled = abs(float(function(2.5 * p, 0.4 * q)) - value)
    # the paper's S(P, Q) = S(PU, QV) with U and V of their own
    rotated = abs(float(function(p @ _orthogonal(6, 1), q @ _orthogonal(6, 2))) - value)
    assert scaled < 1e-9 if scaling else scaled > 1e-3
    assert rotated < 1e-9 if orthogonal else rotated > 1e-3


def test_no_constraint_is_constant() -> None:
    p, q = _pair(((8, 4), (8, 4)))
    assert float(no_similarity(p, q)) == float(no_similarity(3 * p, q @ _orthogonal(4, 1).float())) == 0


def test_errors() -> None:
    for function in (cka, no_similarity, *list(PER_SAMPLE)):
        with pytest.raises(ValueError, match="3 and 4 rows"):
            function(torch.rand(3, 2), torch.rand(4, 2))
        with pytest.raises(ValueError, match="feature axis"):
            function(torch.rand(3), torch.rand(3))
    with pytest.raises(ValueError, match="two samples, got 1"):
        cka(torch.rand(1, 4), torch.rand(1, 4))
    for function in (euclidean_similarity, manhattan_similarity, cosine_similarity, pearson_similarity):
        with pytest.raises(ValueError, match="number of features, got 4 and 5"):
            function(torch.rand(3, 4), torch.rand(3, 5))
    for k, l in ((torch.rand(3, 4), torch.rand(3, 4)), (torch.rand(3, 3), torch.rand(4, 4)), (torch.ones(1, 1),) * 2):  # noqa: E741
        with pytest.raises(ValueError, match="B >= 2"):
            hsic(k, l)
