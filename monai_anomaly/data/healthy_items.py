# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

from ..utils import Keys
from .datalist import VALIDATION, Item, PathLike, load_datalist, read_datalist


def healthy_items(
    datalist: PathLike,
    base_dir: PathLike | None = None,
    limit: int | None = 100,
    evaluated: str | Sequence[str] = (),
) -> list[Item]:
    """Healthy images of the section ``validation``, to choose a threshold from; none where it is evaluated itself.

    Args:
        datalist: JSON file.
        base_dir: folder that the paths are relative to; None: the folder of the datalist.
        limit: use at most that many, evenly spaced over the section; None: all.
        evaluated: section(s) whose images are evaluated.

    Returns:
        Items as of :func:`load_datalist`, without their masks; an empty list where there are no such images.
    """
    sections = [evaluated] if isinstance(evaluated, str) else list(evaluated)
    if VALIDATION in sections or not read_datalist(datalist).get(VALIDATION):
        return []
    items = [item for item in load_datalist(datalist, VALIDATION, base_dir) if item[Keys.TARGET] == 0]
    if limit is not None and limit < len(items):
        items = [items[i * len(items) // limit] for i in range(limit)]
    return [{key: value for key, value in item.items() if key != Keys.LABEL} for item in items]
