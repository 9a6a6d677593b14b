# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..data.datalist import SECTIONS
from ..utils import read_user_json

KEYS: dict[str, type] = {"name": str, "datasets": dict, "trainings": dict, "evaluations": dict, "rows": list}
OPTIONAL_KEYS: dict[str, type] = {"compare_with": str}
_EXAMPLES = {
    "name": '"name": "my comparison"',
    "datasets": '"datasets": {"mine": {"datalist": "my_images.json", "dataset_dir": "/data/my_images", "seeds": [0]}}',
    "trainings": '"trainings": {"ae": {"bundle": "ae", "overrides": {"max_epochs": 100}}}',
    "evaluations": '"evaluations": {"test": {}}',
    "rows": '"rows": [{"label": "autoencoder", "cells": {"score": ["ae", "test"]}}]',
    "label": '"label": "autoencoder"',
    "cells": '"cells": {"score": ["ae", "test"]}, for each column the name of a training and of an evaluation',
}
_KINDS: dict[type, str] = {str: "text", dict: "an object", list: "a list"}


def read_matrix_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of the file of a matrix, its form checked; whether its names fit together is for the matrix to say.

    Raises:
        ValueError: naming the file, what is missing or wrong in it, and what to write.
    """
    content = read_user_json(path, "matrix")
    try:
        check_form(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return dict(content)


def check_form(content: Any) -> None:
    """Look at the keys of a matrix and at the kinds of their values.

    Raises:
        ValueError: saying what is missing or wrong, and what to write.
    """
    if not isinstance(content, dict):
        raise ValueError(f"a matrix is an object with the keys {', '.join(KEYS)}, this is {_kind(content)}")
    if content and set(content) <= set(SECTIONS):
        raise ValueError(f"this is a datalist, not a matrix: name it in one, {_EXAMPLES['datasets']}")
    _check_keys(content, KEYS, OPTIONAL_KEYS, "the matrix")
    for group in ("datasets", "trainings", "evaluations"):
        for name, entry in content[group].items():
            if not isinstance(entry, dict):
                raise ValueError(f"{group}: {name!r} must be an object, it is {_kind(entry)}; write {_EXAMPLES[group]}")
    for number, row in enumerate(content["rows"], 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} must be an object, it is {_kind(row)}; write {_EXAMPLES['rows']}")
        _check_keys(row, {"label": str, "cells": dict}, {}, f"row {number}")
        for column, cell in row["cells"].items():
            if not isinstance(cell, list) or len(cell) != 2:
                raise ValueError(f"row {number}, column {column!r} is {cell!r}; write {_EXAMPLES['cells']}")


def _check_keys(
    content: Mapping[str, Any], needed: Mapping[str, type], optional: Mapping[str, type], place: str
) -> None:
    known = {**needed, **optional}
    if missing := [key for key in needed if key not in content]:
        lines = "".join(f"\n  {_EXAMPLES[key]}" for key in missing)
        raise ValueError(f"{place} lacks {', '.join(map(repr, missing))}; write such as{lines}")
    if unknown := [key for key in content if key not in known]:
        raise ValueError(f"{place} has no key {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
    for key, value in content.items():
        if not isinstance(value, known[key]) and not (key in optional and value is None):
            raise ValueError(f"{place}: {key!r} must be {_KINDS[known[key]]}, it is {_kind(value)}")


def _kind(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str) else _KINDS.get(type(value), repr(value)[:40])
