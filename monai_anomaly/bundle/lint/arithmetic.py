# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Arithmetic on what is known of a value: plain values, paths below a run's folders, and what stays unknown."""

from __future__ import annotations

import ast
import operator
import posixpath
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
        kind: ``"number"``, ``"length"`` (of something that is there, which bounds it), ``"device"``, ``"name"`` (the
            last part of a folder that the user chooses), ``"plain"`` (numbers, any texts that a configuration leaves as
            they are, and lists of these) or ``"value"``.
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


def is_numeric(value: Any) -> bool:
    """Whether a value is a number, told or not."""
    return is_number(value) or (isinstance(value, Unknown) and value.kind in ("number", "length"))


def _bound(value: Any) -> int | None:
    """How many times a length a number can be, or None where it may be anything."""
    if is_number(value):
        return int(abs(value)) + 1 if abs(value) <= MAX_SIZE else None
    return value.scale if isinstance(value, Unknown) and value.kind == "length" else None


def _number(bound: int | None = None) -> Unknown:
    return Unknown("number") if bound is None or bound > MAX_SIZE else Unknown("length", bound)


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
    if isinstance(sign, ast.Mod):
        _check_format(left)
        if isinstance(left, str) and not isinstance(right, (str, int, float)):  # a list here may be a tuple there
            return Unknown(scale=len(left) + left.count("%") * scale_of(right))
    if any(isinstance(side, (Unknown, Below, Component)) for side in (left, right)):
        # beside a number, a setting that only the user can give can be nothing but a number
        sides = [Unknown("number") if side is None else side for side in (left, right)]
        return _grown(sign, *sides) if any(map(is_numeric, (left, right))) else _grown(sign, left, right)
    if isinstance(sign, ast.Add):
        check_size([left, right])
    try:
        return _ARITHMETIC[type(sign)](left, right)
    except (ArithmeticError, TypeError, KeyError, ValueError):
        return Unknown()


def _check_format(text: Any) -> None:
    """Refuse ``'%1000000000d' % 1``, whose width is a matter of its digits, and a format that cannot be told."""
    if isinstance(text, str) and re.search(r"%[^a-zA-Z%]*(\*|\(|[0-9]{4})", text):
        raise TooLarge("a format of more than 999 characters, or by names")
    if isinstance(text, (Unknown, Below, Component)) and not is_numeric(text):
        raise TooLarge("'%' of what may be a text, whose width nobody knows")


def _check_growth(left: Any, right: Any) -> None:
    """Refuse the repetition of a text or list before it is made, and one whose number of times nothing bounds."""
    for many, times in ((left, right), (right, left)):
        if isinstance(many, (str, list)) and isinstance(times, int) and _size(many, {}) * max(1, abs(times)) > MAX_SIZE:
            raise TooLarge(f"it would make something of more than {MAX_SIZE} characters, items or steps")
        known = isinstance(many, (str, list))
        unknown = isinstance(many, (Unknown, Below, Component)) and not is_numeric(many)
        if (known or unknown) and isinstance(times, Unknown) and (unknown or times.kind != "length"):
            raise TooLarge("something would be repeated as often as a number says that nobody knows")


def _grown(sign: ast.operator, left: Any, right: Any) -> Unknown:
    """An unknown value can grow with each sign that is put to it, and again by each reference to it."""
    sides = (left, right)
    if all(map(is_numeric, sides)):
        return _number(_bound_of(sign, left, right))
    if isinstance(sign, _OF_NUMBERS_ALONE) and all(is_numeric(side) or _is_plain(side) for side in sides):
        return Unknown("number")
    if isinstance(sign, ast.Mult):
        times = [side if is_number(side) else scale_of(side) for side in sides]
        scale = int(min(abs(times[0]) * abs(times[1]), 2**63))
    else:
        scale = scale_of(left) + scale_of(right) if isinstance(sign, ast.Add) else max(scale_of(left), scale_of(right))
    return Unknown("value", max(1, scale))


def _bound_of(sign: ast.operator, left: Any, right: Any) -> int | None:
    """The bound of a number that is worked out from two others, of which at least one is not told."""
    first, second = _bound(left), _bound(right)
    if isinstance(sign, (ast.Div, ast.FloorDiv)):
        return first if isinstance(right, int) and right else None
    if first is None or second is None:
        return None
    if isinstance(sign, ast.Mult):  # the product of two lengths grows with both
        return None if isinstance(left, Unknown) and isinstance(right, Unknown) else first * second
    return first + second if isinstance(sign, (ast.Add, ast.Sub)) else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, Unknown) and value.kind == "plain"


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
    """The name of a folder that the user chooses; that of an unknown text may be ``..``."""
    if isinstance(path, Below):
        return path.parts[-1] if path.parts else Unknown("name")
    return posixpath.basename(path) if isinstance(path, str) else Unknown()


def _as_text(value: Any) -> Any:
    if isinstance(value, Below):
        return value
    return str(value) if value is None or isinstance(value, (str, int, float)) else Unknown(scale=scale_of(value))


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, (str, list, dict, range)) else _number(scale_of(value))


def _steps(*bounds: Any) -> Any:
    if not bounds or not all(isinstance(bound, int) for bound in bounds):
        return _unknown_steps(*bounds)
    try:
        found = range(*bounds)
    except (ValueError, TypeError):
        return Unknown()
    if abs(found.stop - found.start) // abs(found.step) > MAX_SIZE:
        raise TooLarge(f"it would make a range of more than {MAX_SIZE} steps")
    return found


def _unknown_steps(*bounds: Any) -> Any:
    limits = [_bound(bound) for bound in bounds]
    if any(limit is None for limit in limits):
        raise TooLarge("a range as long as a number says that nobody knows")
    return Unknown(scale=sum(limit for limit in limits if limit is not None) or 1)


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


def _as_number(convert: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives a number, of whatever it is called with, and the number itself where that is known."""

    def number(*values: Any) -> Any:
        if values and all(isinstance(value, (str, int, float)) for value in values):
            try:
                return convert(*values)
            except (ValueError, TypeError, ArithmeticError):
                return Unknown("number")
        return _number(_bound(values[0]) if len(values) == 1 else None)

    return number


def _one_of(choose: Callable[..., Any]) -> Callable[..., Any]:
    """``min`` or ``max``, which give one of their arguments: a text, where these are texts."""

    def one(*values: Any) -> Any:
        items = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if len(values) > 1 or items is not values:
            if items and (all(map(is_number, items)) or all(isinstance(item, str) for item in items)):
                return choose(items)
            if items and all(map(is_numeric, items)):
                bounds = [_bound(item) for item in items]
                return Unknown("number") if None in bounds else _number(max(filter(None, bounds)))
            if items and all(is_numeric(item) or _is_plain(item) for item in items):
                return Unknown("plain")
        return Unknown(scale=scale_of(list(values)))

    return one


def _as_sequence(value: Any = ()) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else Unknown(scale=scale_of(value))


def _in_order(value: Any = ()) -> Any:
    alike = isinstance(value, list) and (all(map(is_number, value)) or all(isinstance(item, str) for item in value))
    return sorted(value) if alike else Unknown(scale=scale_of(value))


CALLS: dict[str, Callable[..., Any]] = {
    "os.path.join": _joined,
    "os.path.dirname": _folder,
    "os.path.basename": _last_part,
    "os.path.abspath": lambda path: path if isinstance(path, Below) else Unknown(),
    "str": _as_text,
    "len": _length,
    "range": _steps,
    "int": _as_number(int),
    "float": _as_number(float),
    "abs": _as_number(abs),
    "round": _as_number(round),
    "min": _one_of(min),
    "max": _one_of(max),
    "bool": lambda *values: Unknown("length"),
    "list": _as_sequence,
    "tuple": _as_sequence,
    "sorted": _in_order,
}
