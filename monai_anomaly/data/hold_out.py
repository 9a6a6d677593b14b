# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..utils import Keys, one_spelling
from .datalist import Item


def hold_out(items: Sequence[Item], fraction: float = 0.05, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Split healthy images in those to train with and those to watch the training with; no patient is in both.

    Patients are held out in an order drawn with the seed until the images held out are enough.

    Args:
        items: of the training section, each with ``patient`` where it is known (else each is a patient of its own).
        fraction: least share of the images held out, in (0, 1); 0.05 in the image-conditioned diffusion paper's code,
            which splits images, not patients.
        seed: seed of the order.

    Returns:
        items to train with and items held out, each in the order given.

    Raises:
        ValueError: when the fraction is outside its range, or there are fewer than two patients.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), got {fraction!r}")
    known = [item.get(Keys.PATIENT) for item in items]
    patients = one_spelling([str(place if name in (None, "") else name) for place, name in enumerate(known)])
    names = sorted(set(patients))
    if len(names) < 2:
        raise ValueError(f"{len(items)} images of {len(names)} patients cannot be split: one is held out, one stays")
    order = np.random.RandomState(seed).permutation(len(names))[:-1]  # one patient stays whatever the fraction
    held: set[str] = set()
    for place in order:
        if sum(patient in held for patient in patients) >= fraction * len(items):
            break
        held.add(names[place])
    parts = [
        [item for item, patient in zip(items, patients, strict=True) if (patient in held) == out] for out in (0, 1)
    ]
    return parts[0], parts[1]
