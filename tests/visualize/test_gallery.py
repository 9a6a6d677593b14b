# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from monai_anomaly.visualize import select_gallery

DRAW = np.random.default_rng(0)
SCORES = DRAW.normal(size=100).tolist()
TARGETS: list[int | None] = [1] * 5 + [0] * 90 + [None] * 5


def test_every_shorter_choice_begins_a_longer_one() -> None:
    everything = select_gallery(SCORES, TARGETS, 1000)
    assert sorted(everything) == list(range(100))
    for limit in (0, 1, 2, 7, 33, 99, 100):
        assert select_gallery(SCORES, TARGETS, limit) == everything[:limit]


def test_a_rare_class_is_not_crowded_out() -> None:
    chosen = select_gallery(SCORES, TARGETS, 15)
    assert [sum(TARGETS[i] == kind for i in chosen) for kind in (1, 0, None)] == [5, 5, 5]


def test_each_class_shows_its_highest_its_lowest_and_its_middle() -> None:
    chosen = select_gallery(SCORES, TARGETS, 80)
    healthy = sorted((SCORES[i] for i in range(5, 95)), reverse=True)
    shown = [SCORES[i] for i in chosen if TARGETS[i] == 0]
    assert shown[:2] == [healthy[0], healthy[-1]]
    ranks = sorted(healthy.index(score) for score in shown)
    count = len(ranks) // 3
    assert ranks[:count] == list(range(count)) and ranks[-count:] == list(range(90 - count, 90))
    middle = [rank for rank in ranks if 30 <= rank < 60]
    gaps = np.diff([30, *middle, 60])
    assert len(middle) >= count - 1 and gaps.max() <= 2 * 30 / len(middle), "evenly spread over the middle"


def test_ties_keep_the_order_given() -> None:
    assert select_gallery([1.0] * 6, [0] * 6, 6) == select_gallery([1.0] * 6, [0] * 6, 6)
    assert select_gallery([1.0] * 6, [0] * 6, 2) == [0, 5]
    assert select_gallery([], [], 3) == []
    assert select_gallery([2.0], [None], 3) == [0]


def test_refuses() -> None:
    with pytest.raises(ValueError, match="limit must be at least 0, got -1"):
        select_gallery([], [], -1)
    with pytest.raises(ValueError, match="same length, got 2 and 1"):
        select_gallery([1, 2], [0], 1)
