# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from .config_tree import MISSING, absolute_id, look_up, split_file

MAX_VALUES = 20_000
MAX_DEPTH = 8


class MacroBomb(ValueError):
    """Macros that name macros grow without bound."""


def place_macros(config: dict[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``config`` with the content of each macro in its place; one that leads nowhere stays.

    Args:
        config: the whole config.
        files: content of the configs that macros may read, by path in the bundle.

    Raises:
        MacroBomb: when the result would have more than ``MAX_VALUES`` values.
    """
    placed = _Placing(config, files).copy(config, "", 0)
    assert isinstance(placed, dict)
    return placed


class _Placing:
    def __init__(self, config: dict[str, Any], files: Mapping[str, Any]) -> None:
        self.config, self.files, self.left = config, files, MAX_VALUES

    def copy(self, value: Any, place: str, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise MacroBomb(f"the configuration has more than {MAX_VALUES} values, those of its macros included")
        if isinstance(value, str) and value.startswith("%") and depth < MAX_DEPTH:
            found = self._find(value[1:], place)
            return value if found is MISSING else self.copy(found, place, depth + 1)
        if isinstance(value, dict):
            return {key: self.copy(child, f"{place}::{key}" if place else key, depth) for key, child in value.items()}
        if isinstance(value, list):
            return [self.copy(child, f"{place}::{i}", depth) for i, child in enumerate(value)]
        return value

    def _find(self, macro: str, place: str) -> Any:
        file, identifier = split_file(macro)
        if file is None:
            target = absolute_id(macro, place)
            return look_up(self.config, target) if target else MISSING
        content = self.files.get(PurePosixPath(file).as_posix(), MISSING)
        return content if not identifier or content is MISSING else look_up(content, identifier)
