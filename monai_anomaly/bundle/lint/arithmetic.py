# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Arithmetic on what is known of a value: plain values, paths below a run's folders, and what stays unknown."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Components whose items are plain values, which they make sure of themselves.
SETTINGS = ("monai_anomaly.handlers.TrainedSettings",)
MAX_SIZE = 100_000  # characters, items, or steps of a range


@dataclass(frozen=True)
class Below:
    """A path below one of the folders of a run.

    Args:
        root: id of the folder, one of ``ROOTS`` of ``known_values``, or ``""`` for one that a bundle can only read in.
        parts: names from there on.
    """

    root: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """What a ``_target_`` makes."""

    target: str


@dataclass(frozen=True)
class Unknown:
    """A value that cannot be told.

    Args:
        kind: ``"number"``, ``"device"``, ``"name"`` (a path's last part), ``"plain"`` (numbers, texts that a
            configuration leaves as they are, and lists of these) or ``"value"``.
        scale: by how much it may be larger than what is unknown in it.
    """

    kind: str = "value"
    scale: int = 1


class TooLarge(ValueError):
    """An expression would make something huge, or take for ever."""


def check_size(value: Any) -> int:
    """Characters and items in a value.

    Raises:
        TooLarge: beyond ``MAX_SIZE``, or for a number of more than 64 bits.
    """
    size = _size(value, {})
    if size > MAX_SIZE:
        raise TooLarge(f"it would make something of more than {MAX_SIZE} characters, items or steps")
    if isinstance(value, int) and abs(value) > 2**63:
        raise TooLarge("it would make a number of more than 64 bits")
    return size


def _size(value: Any, seen: dict[int, int]) -> int:
    """As if written out, each part as often as it stands there, though the work is done once."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Unknown):
        return value.scale
    if isinstance(value, (list, tuple, dict)):
        if id(value) not in seen:
            children = value.values() if isinstance(value, dict) else value
            seen[id(value)] = 1 + sum(_size(child, seen) for child in children)
        return seen[id(value)]
    return len(value) if isinstance(value, range) else 1


def scale_of(value: Any) -> int:
    """Size of a value, at least 1."""
    return max(1, _size(value, {}))


def is_number(value: Any) -> bool:
    """Whether a value is a plain number."""
    return isinstance(value, (int, float))


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
}


#: Of plain values, only numbers can be divided or taken from each other.
_OF_NUMBERS_ALONE = (ast.Sub, ast.Div, ast.FloorDiv)


def calculated(sign: ast.operator, left: Any, right: Any) -> Any:
    """The result of an operator, or what is known of it."""
    if isinstance(sign, ast.Add) and isinstance(left, Below) and isinstance(right, str):
        return _appended(left, right)
    if isinstance(sign, ast.Mult):
        _check_growth(left, right)
    if any(isinstance(side, (Below, Component)) for side in (left, right)):
        return Unknown(scale=scale_of(left) * scale_of(right) if isinstance(sign, ast.Mult) else 2)
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return _grown(sign, left, right)
    if isinstance(sign, ast.Add):
        check_size([left, right])
    if isinstance(sign, ast.Mod) and isinstance(left, str):
        _check_format(left)
    try:
        return _ARITHMETIC[type(sign)](left, right)
    except (ArithmeticError, TypeError, KeyError, ValueError):
        return Unknown()


def _check_format(text: str) -> None:
    """Refuse ``'%1000000000d' % 1``, whose width is a matter of its digits."""
    if re.search(r"%[^a-zA-Z%]*(\*|[0-9]{4})", text):
        raise TooLarge("a format of more than 999 characters")


def _check_growth(left: Any, right: Any) -> None:
    """Refuse the repetition of a text or list before it is made."""
    for many, times in ((left, right), (right, left)):
        if isinstance(many, (str, list)) and isinstance(times, int) and _size(many, {}) * max(1, abs(times)) > MAX_SIZE:
            raise TooLarge(f"it would make something of more than {MAX_SIZE} characters, items or steps")


def _grown(sign: ast.operator, left: Any, right: Any) -> Unknown:
    """An unknown value can grow with each sign that is put to it, and again by each reference to it."""
    kinds = ("number", "plain") if isinstance(sign, _OF_NUMBERS_ALONE) else ("number",)
    numbers = all(is_number(side) or (isinstance(side, Unknown) and side.kind in kinds) for side in (left, right))
    if isinstance(sign, ast.Mult):
        times = [side if is_number(side) and not numbers else scale_of(side) for side in (left, right)]
        unknown = all(isinstance(side, Unknown) for side in (left, right))
        scale = int(min(abs(times[0]) * abs(times[1]) * (2 if unknown else 1), 2**63))
    else:
        scale = scale_of(left) + scale_of(right) if isinstance(sign, ast.Add) else max(scale_of(left), scale_of(right))
    return Unknown("number" if numbers else "value", max(1, scale))


def _appended(path: Below, text: str) -> Any:
    """``path + '/name'``; without the slash it would be another folder beside it."""
    return _joined(path, text[1:]) if text.startswith("/") else Unknown()


def _joined(first: Any, *others: Any) -> Any:
    """What ``os.path.join`` gives."""
    if first is None:  # a setting that only the user can give: what is below it is the user's
        first = Below("")
    if not others:
        return first
    *rest, last = (first, *others)
    base = _joined(*rest)
    if isinstance(last, Unknown) and last.kind == "name":
        last = "name"
    if isinstance(last, str) and last.startswith("/"):
        return last
    if isinstance(base, Below) and isinstance(last, str):
        parts = tuple(part for part in last.split("/") if part not in ("", "."))
        return Unknown() if ".." in parts or "\\" in last else Below(base.root, base.parts + parts)
    return f"{base.rstrip('/')}/{last}" if isinstance(base, str) and isinstance(last, str) else Unknown()


def _folder(path: Any) -> Any:
    if isinstance(path, Below):
        return Below(path.root, path.parts[:-1]) if path.parts else Unknown()
    return Unknown()


def _last_part(path: Any) -> Any:
    if isinstance(path, Below) and path.parts:
        return path.parts[-1]
    return Unknown("name")


def _as_text(value: Any) -> Any:
    if isinstance(value, Below):
        return value
    return str(value) if value is None or isinstance(value, (str, int, float)) else Unknown(scale=scale_of(value))


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, (str, list, dict, range)) else Unknown("number")


def _steps(*bounds: Any) -> Any:
    if not bounds or not all(isinstance(bound, int) for bound in bounds):
        return Unknown(scale=max(map(scale_of, bounds), default=1))
    try:
        found = range(*bounds)
    except (ValueError, TypeError):
        return Unknown()
    if abs(found.stop - found.start) // abs(found.step) > MAX_SIZE:
        raise TooLarge(f"it would make a range of more than {MAX_SIZE} steps")
    return found


def item_of(holder: Any, key: Any) -> Any:
    """``holder[key]``, or what is known of it."""
    if isinstance(holder, (list, dict)):
        try:
            return holder[key]
        except (LookupError, TypeError):
            return Unknown()
    if isinstance(holder, Component) and holder.target in SETTINGS:
        return Unknown("plain")
    return Unknown(scale=scale_of(holder))


def _to_number(*values: Any) -> Any:
    return values[0] if len(values) == 1 and is_number(values[0]) else Unknown("number")


def _as_sequence(value: Any = ()) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else Unknown(scale=scale_of(value))


CALLS: dict[str, Callable[..., Any]] = {
    "os.path.join": _joined,
    "os.path.dirname": _folder,
    "os.path.basename": _last_part,
    "os.path.abspath": lambda path: path if isinstance(path, Below) else Unknown(),
    "str": _as_text,
    "len": _length,
    "range": _steps,
    "int": _to_number,
    "float": _to_number,
    "abs": _to_number,
    "round": _to_number,
    "min": lambda *values: Unknown("number") if len(values) > 1 else Unknown(scale=scale_of(values)),
    "max": lambda *values: Unknown("number") if len(values) > 1 else Unknown(scale=scale_of(values)),
    "bool": lambda *values: Unknown("number"),
    "list": _as_sequence,
    "tuple": _as_sequence,
    "sorted": _as_sequence,
}
