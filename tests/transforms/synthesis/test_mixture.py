# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from scipy import ndimage, stats
from torch import Tensor

from monai_anomaly.transforms.synthesis.many_tasks import (
    RandPoissonBlend,
    RandSinkDeform,
    RandSmoothIntensity,
    RandSourceDeform,
    many_tasks,
)
from monai_anomaly.transforms.synthesis.mixture import RandAnomalyMixture, RandAnomalyMixtured


def textured(channels: int = 1, shape: tuple[int, ...] = (36, 32), seed: int = 0) -> Tensor:
    noise = ndimage.gaussian_filter(np.random.RandomState(seed).rand(channels, *shape), (0, *[1.2] * len(shape)))
    return torch.from_numpy((noise - noise.min()) / np.ptp(noise)).float()


def five(channels: int = 1, shape: tuple[int, ...] = (36, 32)) -> list[Any]:
    sources = [textured(channels, shape, seed) for seed in (11, 12)]
    return many_tasks(sources, sources)


def drawn_tasks(mixture: RandAnomalyMixture, count: int) -> np.ndarray:
    """Task of each image, -1 for one left alone."""
    rng, image = np.random.RandomState(0), textured()
    plans = [mixture.plan(rng, image) for _ in range(count)]
    return np.array([plan.task if plan.patches else -1 for plan in plans])


def test_tasks_are_drawn_alike() -> None:
    counts = np.bincount(drawn_tasks(RandAnomalyMixture(five()), 1000) + 1, minlength=6)
    assert counts[0] == 0 and stats.chisquare(counts[1:]).pvalue > 0.01


def test_tasks_are_drawn_by_their_probability() -> None:
    mixture = RandAnomalyMixture(five(), [0.1, 0.4, 0.0, 0.3, 0.2])
    counts = np.bincount(drawn_tasks(mixture, 1000), minlength=5)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3, 4]], 1000 * np.array([0.1, 0.4, 0.3, 0.2])).pvalue > 0.01


@pytest.mark.parametrize("p_clean", [0.2, 0.7])
def test_some_images_stay_clean(p_clean: float) -> None:
    counts = np.bincount(drawn_tasks(RandAnomalyMixture(five(), p_clean=p_clean), 1000) + 1, minlength=6)
    assert stats.chisquare(counts, 1000 * np.array([p_clean, *[(1 - p_clean) / 5] * 5])).pvalue > 0.01


@pytest.mark.parametrize(("p_clean", "targets"), [(0.0, {1}), (1.0, {0}), (0.5, {0, 1})])
def test_a_clean_image_is_no_anomaly(p_clean: float, targets: set[int]) -> None:
    image, mixture = textured(), RandAnomalyMixture(five()[2:], p_clean=p_clean).set_random_state(0)
    results = [mixture(image) for _ in range(25)]
    assert {result["target"] for result in results} == targets
    for result in results:
        same = torch.equal(result["image"], image)
        assert same == (result["target"] == 0) == (not bool(result["label"].any())) == (result["params"] == "[]")


def test_a_mixture_of_one_is_that_one() -> None:
    image, corruption = textured(), RandSinkDeform(task=7)
    mixture = RandAnomalyMixture([corruption])
    rng = np.random.RandomState(3)
    plan = mixture.plan(rng, image)
    result = mixture.apply(image[None], [plan])
    rng = np.random.RandomState(3)
    rng.rand(), rng.choice(1, p=[1.0])  # whether, and which
    other = corruption.apply(image[None], [corruption.plan(rng, image)])
    assert all(torch.equal(result[key], other[key]) for key in other)
    assert result["task"].tolist() == [7]


def test_tasks_keep_their_own_settings() -> None:
    mixture = RandAnomalyMixture([RandSmoothIntensity(prob=0.0, task=1), RandSmoothIntensity(max_anomalies=1, task=2)])
    rng, image = np.random.RandomState(0), textured()
    found = {(plan.task, len(plan.patches)) for plan in (mixture.plan(rng, image) for _ in range(40))}
    assert found == {(1, 0), (2, 1)}


@pytest.mark.parametrize(("channels", "shape"), [(1, (36, 32)), (3, (30, 34)), (1, (14, 16, 12))])
def test_a_batch_equals_one_by_one(channels: int, shape: tuple[int, ...]) -> None:
    mixture = RandAnomalyMixture(five(channels, shape), p_clean=0.2)
    rng = np.random.RandomState(1)
    images = torch.stack([textured(channels, shape, seed) for seed in range(14)])
    plans = [mixture.plan(rng, image) for image in images]
    together = mixture.apply(images, plans)
    assert len(set(together["task"].tolist())) > 3
    for row, plan in enumerate(plans):
        alone = mixture.apply(images[row : row + 1], [plan])
        for key, value in alone.items():
            np.testing.assert_allclose(together[key][row], value[0], atol=2e-5)
        assert together["task"][row] == plan.task
        assert torch.equal(together["clean"][row], images[row])


def test_the_order_of_a_batch_does_not_matter() -> None:
    mixture, rng = RandAnomalyMixture(five()), np.random.RandomState(1)
    images = torch.stack([textured(seed=seed) for seed in range(8)])
    plans = [mixture.plan(rng, image) for image in images]
    order = rng.permutation(8)
    one, other = mixture.apply(images, plans), mixture.apply(images[order], [plans[row] for row in order])
    for key in one:
        np.testing.assert_allclose(one[key][order], other[key], atol=2e-5)


def test_a_state_repeats_itself() -> None:
    image, mixture = textured(), RandAnomalyMixture(five(), p_clean=0.2)
    runs = [
        [mixture.set_random_state(4)(image) for _ in range(1)] + [mixture(image) for _ in range(6)] for _ in range(2)
    ]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one["image"], other["image"]) and one["params"] == other["params"]
    assert len({result["params"] for result in runs[0]}) > 3


def test_foreground_and_source_reach_the_tasks() -> None:
    image, source = textured(), textured(seed=5)
    foreground = torch.zeros(1, 36, 32)
    foreground[:, 18:] = 1
    mixture = RandAnomalyMixture([RandPoissonBlend(), RandSourceDeform()]).set_random_state(0)
    for _ in range(10):
        result = mixture(image, foreground, source)
        support = result["support"][0]
        assert result["target"] == 0 or int(support[18:].sum()) > 0.3 * int(support.sum())
    with pytest.raises(ValueError, match="give source="):
        for _ in range(20):
            mixture(image)


def test_meta_data_stay() -> None:
    image = MetaTensor(textured(), meta={"filename_or_obj": "a.png"})
    result = RandAnomalyMixture(five()).set_random_state(0)(image)
    for name in ("image", "clean", "label", "support"):
        assert isinstance(result[name], MetaTensor) and result[name].meta["filename_or_obj"] == "a.png"


def test_dimensions_that_no_task_has_are_refused() -> None:
    with pytest.raises(ValueError, match="2D or 3D"):
        RandAnomalyMixture(five())(torch.zeros(1, 9))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tasks": []}, "no corruption"),
        ({"p_clean": -0.1}, "p_clean"),
        ({"p_clean": 1.1}, "p_clean"),
        ({"probs": [0.5, 0.6]}, "probs"),
        ({"probs": [1.0]}, "probs"),
        ({"probs": [1.5, -0.5]}, "probs"),
    ],
)
def test_arguments_outside_their_range_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandAnomalyMixture(**{"tasks": [RandSinkDeform(), RandSourceDeform()], **kwargs})


# --- data loading ---------------------------------------------------------------------------------------------------


def loaded(seed: int, workers: int, count: int = 8) -> list[dict[str, Any]]:
    """Corrupt one and the same image again and again in worker processes; those of worker w are w, w + workers..."""
    transform = RandAnomalyMixtured("image", tasks=five(), p_clean=0.0)
    data = Dataset([{"image": textured()}] * count, transform)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(data, batch_size=1, num_workers=workers, generator=generator)
    return list(loader)


def test_workers_draw_different_anomalies_that_a_seed_repeats() -> None:
    first, again, other = loaded(0, 2), loaded(0, 2), loaded(1, 2)
    for one, two in zip(first, again, strict=True):
        assert one["params"] == two["params"] and torch.equal(one["image"], two["image"])
    drawn = [sample["params"][0] for sample in first]
    assert len(set(drawn)) == len(drawn)  # neither worker repeats itself, nor the other
    assert not set(drawn) & {sample["params"][0] for sample in other}
