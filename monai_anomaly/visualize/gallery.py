# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["select_gallery"]


def _order_within_class(members: np.ndarray, scores: np.ndarray) -> list[int]:
    """Members of one class, the most telling first: top, bottom, middle, top, bottom, middle ..."""
    ranked = members[np.argsort(-scores[members], kind="stable")]
    third = max(1, len(ranked) // 3)
    top, bottom = ranked[:third], ranked[third:][::-1][:third]
    middle = ranked[third : len(ranked) - len(bottom)]
    # bit-reversed positions spread over the middle at every length, so any prefix of them is spread too
    bits = max(1, int(len(middle) - 1).bit_length()) if len(middle) else 0
    reversed_positions = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(2**bits)] if len(middle) else []
    spread = [int(middle[i]) for i in reversed_positions if i < len(middle)]
    queues = [list(map(int, top)), list(map(int, bottom)), spread]
    longest = max(len(queue) for queue in queues)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def select_gallery(scores: Sequence[float], targets: Sequence[int | None], limit: int) -> list[int]:
    """Choose the images worth a picture: of each class the highest, the lowest, and an even spread between.

    Classes take turns until the limit is reached, so a rare class is never crowded out. The choice is deterministic,
    and every shorter choice is the beginning of a longer one.

    Args:
        scores: N scores, larger is more abnormal.
        targets: N targets, 0 healthy, 1 anomalous, anything else or None unknown.
        limit: number of images, at least 0.

    Raises:
        ValueError: ``limit`` is negative, or scores and targets differ in number.

    Returns:
        positions of at most ``limit`` images, the most telling first.
    """
    if limit < 0:
        raise ValueError(f"limit must be at least 0, got {limit}.")
    if len(scores) != len(targets):
        raise ValueError(f"scores and targets must have the same length, got {len(scores)} and {len(targets)}.")
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64))
    classes = np.asarray([target if target in (0, 1) else -1 for target in targets], dtype=np.int64)
    queues = [_order_within_class(np.flatnonzero(classes == c), values) for c in (1, 0, -1) if (classes == c).any()]
    longest = max((len(queue) for queue in queues), default=0)
    turns = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return turns[:limit]
