# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from monai_anomaly.data import hold_out


def _items(patients: list[Any]) -> list[dict[str, Any]]:
    return [
        {"image": f"{i}.png"} | ({} if patient == "unknown" else {"patient": patient})
        for i, patient in enumerate(patients)
    ]


def _drawn(seed: int) -> list[str]:
    """Patients of a few images each, in no order."""
    rng = np.random.RandomState(seed)
    patients = [f"p{i}" for i in range(rng.randint(2, 12)) for _ in range(rng.randint(1, 9))]
    return [patients[i] for i in rng.permutation(len(patients))]


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3, 0.9])
def test_no_patient_is_in_both_parts_and_no_image_is_lost(fraction: float) -> None:
    for seed in range(40):
        items = _items(_drawn(seed))
        parts = hold_out(items, fraction, seed)
        train, held = ([item["patient"] for item in part] for part in parts)
        assert train and held and not set(train) & set(held)
        assert sorted(item["image"] for part in parts for item in part) == sorted(item["image"] for item in items)
        for part in parts:
            assert part == [item for item in items if item in part], "in the order given"


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3, 0.6])
def test_as_many_are_held_out_as_needed_and_not_a_patient_more(fraction: float) -> None:
    for seed in range(40):
        items = _items(_drawn(seed))
        train, held = hold_out(items, fraction, seed)
        sizes = Counter(item["patient"] for item in held)
        if len({item["patient"] for item in train}) > 1:  # else the last patient had to stay
            assert len(held) >= fraction * len(items)
        assert len(held) - max(sizes.values()) < fraction * len(items)


def test_one_image_a_patient_gives_the_fraction() -> None:
    train, held = hold_out(_items([f"p{i}" for i in range(200)]))
    assert (len(train), len(held)) == (190, 10)


def test_the_seed_chooses_and_nothing_else_is_drawn_from() -> None:
    items = _items(_drawn(1))
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    chosen = [hold_out(items, 0.2, seed)[1] for seed in (0, 1, 2, 3)]
    assert np.array_equal(before, np.random.get_state()[1])
    assert chosen == [hold_out(items, 0.2, seed)[1] for seed in (0, 1, 2, 3)]
    assert len({tuple(item["image"] for item in part) for part in chosen}) > 1


def test_the_order_of_the_list_does_not_choose() -> None:
    items = _items(_drawn(2))
    held = [item["image"] for item in hold_out(items, 0.2)[1]]
    assert sorted(item["image"] for item in hold_out(items[::-1], 0.2)[1]) == sorted(held)


@pytest.mark.parametrize("unknown", ["unknown", None, ""])
def test_images_of_unknown_patients_count_each_for_itself(unknown: Any) -> None:
    train, held = hold_out(_items([unknown] * 20), 0.25)
    assert (len(train), len(held)) == (15, 5)


def test_patients_may_be_numbers_zero_included() -> None:
    for seed in range(10):
        train, held = hold_out(_items([0, 0, 0, 1, 2, 0, 3, 0, 4]), 0.2, seed)
        assert not {item["patient"] for item in train} & {item["patient"] for item in held}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_wrong_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\), got {fraction}"):
        hold_out(_items(["a", "b"]), fraction)


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a", "a"]])
def test_a_single_patient_cannot_be_split(patients: list[str]) -> None:
    number = len(set(patients))
    with pytest.raises(ValueError, match=f"{len(patients)} images of {number} patients cannot be split"):
        hold_out(_items(patients))
