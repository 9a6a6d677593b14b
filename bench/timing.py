# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Times of functions that are compared with each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def shortest(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest time of a call of each in seconds, measured in turns; the first call of each warms up."""
    best = dict.fromkeys(functions, float("inf"))
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - start)
    return best
