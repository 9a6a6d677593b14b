# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity as Reference

from monai_anomaly.networks.blocks import KernelDensity


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(head: KernelDensity, healthy: torch.Tensor, size: int = 7) -> KernelDensity:
    for batch in healthy.split(size):
        head.fit_batch(batch)
    head.finish()
    return head


@pytest.mark.parametrize("bandwidth", [0.2, 3, "scott", "silverman"])
def test_density_is_that_of_scikit_learn(bandwidth: float | str) -> None:
    healthy, queries = random(30, 4), 2 * random(8, 4, seed=1)
    reference = Reference(bandwidth=bandwidth).fit(healthy.double().numpy())
    found = fitted(KernelDensity(bandwidth), healthy)(queries)
    assert found.shape == (8, 1)
    np.testing.assert_allclose(found[:, 0], -reference.score_samples(queries.double().numpy()), rtol=1e-5, atol=1e-5)


def test_far_away_is_finite() -> None:
    assert fitted(KernelDensity(0.1), random(9, 4))(1000 + random(2, 4)).isfinite().all()


def test_the_density_of_a_sample_is_that_of_all() -> None:
    healthy, queries = random(4000, 3), random(20, 3, seed=1)
    some, every = fitted(KernelDensity(0.5, size=1000), healthy, 500), fitted(KernelDensity(0.5), healthy, 500)
    assert some.bank.shape == (1000, 3) and some.num_used == 1000
    assert (some(queries) - every(queries)).abs().mean() < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"bandwidth": 0.0}, "got 0.0"), ({"bandwidth": "best"}, "'best'"), ({"size": 0}, "got 0")],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelDensity(**arguments)  # type: ignore[arg-type]


def test_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got a grid \(2, 2\): pool it first"):
        KernelDensity().fit_batch(random(3, 4, 2, 2))
    with pytest.raises(ValueError, match=r"\(B, 4\), got \(3, 5\)"):
        fitted(KernelDensity(), random(3, 4))(random(3, 5))
