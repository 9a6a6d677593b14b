# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str], shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only when the block succeeds.

    A reader therefore sees the old file or the whole new one, never half of it, whenever the writer is killed.
    The temporary name is fixed by the target's, so what a killed writer left behind is overwritten by the next one.

    Args:
        path: the file to write; its folder is created.
        shared: whether other processes may write the same file at the same time; each then has a temporary file of its
            own, and the last to finish wins.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # the name's end is kept, because image writers choose the format by it
    own = f"{uuid.uuid4().hex}-" if shared else ""
    temporary = target.with_name(f".partial-{own}{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, shared: bool = False) -> None:
    """Write ``text`` to ``path`` as UTF-8, all or nothing; ``shared`` as for :func:`atomic_path`."""
    with atomic_path(path, shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, shared: bool = False) -> None:
    """Write ``value`` to ``path`` as indented JSON, all or nothing; NaN is refused, since other readers reject it.

    ``shared`` as for :func:`atomic_path`.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", shared)


def finite_or_none(value: float | None) -> float | None:
    """A number as JSON can hold it: NaN and infinity become None."""
    return value if value is not None and math.isfinite(value) else None
