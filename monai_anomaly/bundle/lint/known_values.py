# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What config values can be, as far as it can be told without running anything.

``KnownValues`` follows references and works out expressions with arithmetic of its own: on plain values, on paths below
the folders of a run, and on what stays unknown. Both branches of a choice count, since a user may set what decides.
Nothing is imported or called, and whatever would grow beyond ``MAX_SIZE`` is refused before it is made.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from .arithmetic import CALLS, Below, Component, TooLarge, Unknown, calculated, check_size, is_number, item_of, scale_of
from .config_tree import MISSING, absolute_id, look_up, split
from .expressions import dotted_name, is_import, parse_expression, reference_of, references

MAX_ALTERNATIVES = 16
MAX_DEPTH = 50
#: Ids whose value is a folder that the user may choose: paths must be built from them, whatever they are.
ROOTS = ("bundle_root", "output_dir", "dataset_dir")
#: Components that are a folder: the sample in this package.
FOLDERS = ("monai_anomaly.data.sample_dir",)


class KnownValues:
    """The values of one config.

    Args:
        config: the whole config, overlays laid over each other and macros in place.
        names: what each imported name stands for.
    """

    def __init__(self, config: dict[str, Any], names: dict[str, str]) -> None:
        self._config = config
        self._names = names
        self._found: dict[str, tuple[Any, ...]] = {}
        self._checked: dict[int, Any] = {}
        self._depth = 0

    def of(self, value: Any, place: str) -> tuple[Any, ...]:
        """All that a value may be: plain values, :class:`Below`, :class:`Component` or :class:`Unknown`.

        Args:
            value: the config value.
            place: its id, from which relative references count.

        Raises:
            TooLarge: when an expression would make something huge.
        """
        if self._depth > MAX_DEPTH:
            raise TooLarge("references or values are nested too deeply")
        self._depth += 1
        try:
            return self._limited(self._of(value, place))
        finally:
            self._depth -= 1

    def defined(self, identifier: str) -> tuple[Any, ...]:
        """All that the value at an id may be; the folders of a run as what their own definition says."""
        value = look_up(self._config, identifier)
        return (Unknown(),) if value is MISSING else self.of(value, identifier)

    def _of(self, value: Any, place: str) -> tuple[Any, ...]:
        if isinstance(value, str):
            return self._of_text(value, place)
        if isinstance(value, dict) and "_target_" in value:
            target = str(value["_target_"])
            return (Below("") if target in FOLDERS else Component(target),)
        if isinstance(value, list):
            return _combined([self.of(item, f"{place}::{i}") for i, item in enumerate(value)], list)
        if isinstance(value, dict):
            keys = list(value)
            children = [self.of(value[key], f"{place}::{key}") for key in keys]
            return _combined(children, lambda items: dict(zip(keys, items, strict=True)))
        return (value,)

    def _of_text(self, value: str, place: str) -> tuple[Any, ...]:
        if value.startswith("$") and not is_import(value):
            try:
                return self.node(parse_expression(value), place)
            except (SyntaxError, RecursionError, MemoryError):
                return (Unknown(),)  # the rule 'expression' has said so
        if value.startswith("%"):
            return (Unknown(),)
        found = references(value)
        return self._reference(found[0], place) if value.startswith("@") and found else (value,)

    def _reference(self, reference: str, place: str) -> tuple[Any, ...]:
        identifier = absolute_id(reference, place)
        if not identifier:
            return (Unknown(),)
        if identifier in ROOTS:
            return (Below(identifier),)
        key = "::".join(split(identifier))
        if key not in self._found:
            self._found[key] = (Unknown(),)  # what a circle of references is
            value = look_up(self._config, identifier)
            self._found[key] = (Unknown(),) if value is MISSING else self.of(value, key)
        return self._found[key]

    def _limited(self, found: tuple[Any, ...]) -> tuple[Any, ...]:
        different: list[Any] = []
        for item in found:
            if not any(item is other or (type(item) is type(other) and item == other) for other in different):
                different.append(item)
        for item in different:
            if id(item) not in self._checked:
                check_size(item)
                self._checked[id(item)] = item  # kept, so that nothing else can have its number
        return tuple(different) if len(different) <= MAX_ALTERNATIVES else (Unknown(),)

    def node(self, node: ast.AST, place: str) -> tuple[Any, ...]:
        """As :meth:`of`, for a part of an expression at ``place``."""
        reference = reference_of(node)
        if reference is not None:
            return self._reference(reference, place)
        rule = getattr(self, f"_of_{type(node).__name__.lower()}", None)
        return self._limited(rule(node, place)) if rule else (Unknown(),)

    def _of_constant(self, node: ast.Constant, place: str) -> tuple[Any, ...]:
        return (node.value,)

    def _of_list(self, node: ast.List | ast.Tuple, place: str) -> tuple[Any, ...]:
        return _combined([self.node(item, place) for item in node.elts], list)

    _of_tuple = _of_list

    def _of_dict(self, node: ast.Dict, place: str) -> tuple[Any, ...]:
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        values = [self.node(item, place) for item in node.values]
        return _combined(values, lambda items: dict(zip(keys, items, strict=True)))

    def _of_ifexp(self, node: ast.IfExp, place: str) -> tuple[Any, ...]:
        self.node(node.test, place)
        return self.node(node.body, place) + self.node(node.orelse, place)

    def _of_boolop(self, node: ast.BoolOp, place: str) -> tuple[Any, ...]:
        return tuple(item for value in node.values for item in self.node(value, place))

    def _of_compare(self, node: ast.Compare, place: str) -> tuple[Any, ...]:
        for child in (node.left, *node.comparators):
            self.node(child, place)
        return (True, False)

    def _of_unaryop(self, node: ast.UnaryOp, place: str) -> tuple[Any, ...]:
        operands = self.node(node.operand, place)
        if isinstance(node.op, ast.Not):
            return (True, False)
        return tuple(-x if is_number(x) and isinstance(node.op, ast.USub) else x for x in operands)

    def _of_binop(self, node: ast.BinOp, place: str) -> tuple[Any, ...]:
        pairs = product(self.node(node.left, place), self.node(node.right, place))
        return tuple(calculated(node.op, left, right) for left, right in pairs)

    def _of_subscript(self, node: ast.Subscript, place: str) -> tuple[Any, ...]:
        holders = self.node(node.value, place)
        if isinstance(node.slice, ast.Slice):
            bounds = [part for part in (node.slice.lower, node.slice.upper, node.slice.step) if part is not None]
            for part in bounds:
                self.node(part, place)
            return tuple(Unknown(scale=scale_of(holder)) for holder in holders)
        keys = self.node(node.slice, place)
        return tuple(item_of(holder, key) for holder, key in product(holders, keys))

    def _of_attribute(self, node: ast.Attribute, place: str) -> tuple[Any, ...]:
        if dotted_name(node, self._names) is None:
            self.node(node.value, place)
        return (Unknown(),)

    def _of_call(self, node: ast.Call, place: str) -> tuple[Any, ...]:
        name = dotted_name(node.func, self._names)
        arguments = [self.node(item, place) for item in node.args]
        for keyword in node.keywords:
            self.node(keyword.value, place)
        if name is None and isinstance(node.func, ast.Attribute):
            self.node(node.func.value, place)
        if name == "torch.device":
            return (Unknown("device"),)
        known = CALLS.get(name or "")
        if known is None or node.keywords or math.prod(map(len, arguments)) > MAX_ALTERNATIVES:
            return (Unknown(scale=max((scale_of(item) for given in arguments for item in given), default=1)),)
        return tuple(known(*given) for given in product(*arguments))


def _combined(children: list[tuple[Any, ...]], make: Callable[[list[Any]], Any]) -> tuple[Any, ...]:
    """The containers that the alternatives of their items make; too many are one container of unknown things."""
    if math.prod(map(len, children)) > MAX_ALTERNATIVES:
        children = [(child[0] if len(child) == 1 else Unknown(),) for child in children]
    return tuple(make(list(items)) for items in product(*children))


def alternatives_of(values: KnownValues, value: Any, place: str) -> Iterator[Any]:
    """As :meth:`KnownValues.of`; what would be too large is unknown, so that no rule passes for want of a value."""
    try:
        yield from values.of(value, place)
    except TooLarge:
        yield Unknown()
