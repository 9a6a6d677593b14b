# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading and walking configs as plain data, with MONAI's rules for ids, overlays and macros, resolving nothing."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEPARATOR = "::"
_MACRO_FILE = re.compile(r"(.*\.(?:json|ya?ml))(?:(?:#|::)(.*))?", re.IGNORECASE | re.DOTALL)
MAX_MACROS = 8
MAX_BYTES = 25 * 2**20
MAX_CONFIG_BYTES = 2**20
MAX_DEPTH = 64


class _Missing:
    """Marks an id that leads nowhere, because None is a legal value."""


MISSING = _Missing()


def load_strict_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """Read JSON as other readers would accept it.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        ValueError: for broken JSON, a key given twice, or NaN and Infinity, which JSON does not have; for a file that
            is too large, or nested too deeply, to be a configuration or a datalist.
    """
    if path.stat().st_size > limit:
        raise ValueError(f"it has more than {limit // 2**20} MB")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        level = [child for value in level for child in _children(value)]
    return content


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value below and including ``value`` with its id, ``#`` between the parts."""
    yield path, value
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from walk(child, f"{path}#{key}" if path else str(key))


def split(identifier: str) -> list[str]:
    """Parts of a config id, whichever separator it uses."""
    return identifier.replace("#", SEPARATOR).split(SEPARATOR)


def split_file(macro: str) -> tuple[str | None, str]:
    """The file that a macro reads, None for this config itself, and the id in it.

    Args:
        macro: the config value without its ``%``.
    """
    match = _MACRO_FILE.fullmatch(macro)
    return (None, macro) if match is None else (match[1], match[2] or "")


def look_up(config: Any, identifier: str, macros: int = 0) -> Any:
    """The value at a config id, or ``MISSING``; a macro without a file on the way is followed.

    Args:
        config: the whole config.
        identifier: id with ``#`` or ``::`` between its parts.
        macros: how many macros have been followed already.
    """
    value = config
    for part in split(identifier):
        if isinstance(value, str) and value.startswith("%") and macros < MAX_MACROS:
            value = look_up(config, value[1:], macros + 1)
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def absolute_id(reference: str, place: str) -> str | None:
    """Resolve a relative id: each leading separator goes up one level from ``place``; None when it leaves the config.

    Args:
        reference: id without its ``@`` or ``%``, such as ``"::lr"``.
        place: id of the value that holds the reference.
    """
    stripped = reference.replace("#", SEPARATOR)
    levels = 0
    while stripped.startswith(SEPARATOR):
        stripped = stripped[len(SEPARATOR) :]
        levels += 1
    if not levels:
        return stripped
    parts = split(place)
    return None if levels > len(parts) else SEPARATOR.join([*parts[:-levels], stripped])


def overlay(base: dict[str, Any], *overlays: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Merge configs as ``monai.bundle run`` does with a list of config files.

    A key may be an id (``train#trainer``) and then replaces the value there; ``+key`` merges dictionaries and extends
    lists.

    Args:
        base: the first config.
        overlays: those read after it.

    Returns:
        the merged config, and the keys that could not be placed.
    """
    merged, homeless = _merge_into({}, base)
    for config in overlays:
        merged, lost = _merge_into(merged, config)
        homeless += lost
    return merged, homeless


def _merge_into(merged: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    homeless = []
    for key, value in copy.deepcopy(config).items():
        identifier = key[1:] if key.startswith("+") else key
        *parents, last = split(identifier)
        parent = look_up(merged, SEPARATOR.join(parents)) if parents else merged
        if not _place(parent, last, value, merge=key.startswith("+")):
            homeless.append(key)
    return merged, homeless


def _place(parent: Any, last: str, value: Any, merge: bool) -> bool:
    """Put ``value`` into ``parent``; False when there is no such place."""
    present = look_up(parent, last)
    if merge and present is not MISSING:
        if isinstance(present, dict) and isinstance(value, dict):
            present.update(value)
        elif isinstance(present, list) and isinstance(value, list):
            present.extend(value)
        else:
            return False
    elif isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and last.isdecimal() and int(last) < len(parent):
        parent[int(last)] = value
    else:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    if twice:
        raise ValueError(f"key given twice: {', '.join(twice)}")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
