# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ast
from typing import Any

import pytest

from monai_anomaly.bundle.lint.arithmetic import CALLS, MAX_SIZE, Below, Component, TooLarge, Unknown, calculated

OUTPUT = Below("output_dir")
LENGTH, NUMBER, PLAIN, UNKNOWN = Unknown("length"), Unknown("number"), Unknown("plain"), Unknown()


def _shown(value: Any) -> str:
    """A name that is the same in every process."""
    return type(value).__name__ if isinstance(value, ast.AST) else str(value)


@pytest.mark.parametrize("name", ["min", "max"])
def test_the_least_of_texts_is_a_text(name: str) -> None:
    call = CALLS[name]
    assert call("/etc", "z") == {"min": "/etc", "max": "z"}[name]
    assert all(
        call(*given).kind == "value" for given in [("/etc", UNKNOWN), ("/etc", 1), (UNKNOWN, 1), ("/etc", PLAIN)]
    )
    assert call([1, 2, 3]) == {"min": 1, "max": 3}[name]
    assert call(["a", "b"]) == {"min": "a", "max": "b"}[name]
    assert call(["a", UNKNOWN]).kind == call(UNKNOWN).kind == "value"
    assert call(1, 2.5) == {"min": 1, "max": 2.5}[name]
    assert call(1, NUMBER) == NUMBER
    assert call(1, LENGTH).kind == "length"
    assert call(1, PLAIN) == call(PLAIN, PLAIN) == PLAIN


def test_the_last_part_of_a_text_may_lead_up() -> None:
    basename = CALLS["os.path.basename"]
    assert basename("a/..") == ".." and basename("a/b.png") == "b.png"
    assert basename(UNKNOWN) == basename(PLAIN) == UNKNOWN
    assert basename(OUTPUT) == Unknown("name") and basename(Below("output_dir", ("maps",))) == "maps"


def test_order_is_the_order_of_python() -> None:
    assert CALLS["sorted"](["b", "a"]) == ["a", "b"]
    assert CALLS["sorted"]([2, 1.5]) == [1.5, 2]
    assert CALLS["sorted"]([UNKNOWN, "a"]).kind == "value"


def test_numbers_in_texts_are_read() -> None:
    assert CALLS["int"]("99999999999") == 99999999999 and CALLS["int"](2.7) == 2 and CALLS["float"]("1.5") == 1.5
    assert CALLS["round"](2.345, 2) == 2.35 or CALLS["round"](2.345, 2) == 2.34
    assert CALLS["int"]("x") == CALLS["int"](float("inf")) == CALLS["int"](PLAIN) == NUMBER
    assert CALLS["int"](LENGTH) == LENGTH == CALLS["len"](UNKNOWN)
    assert CALLS["len"](Unknown(scale=7)) == Unknown("length", 7)


BINARY: list[tuple[Any, ast.operator, Any, Any]] = [
    (LENGTH, ast.Add(), 2, Unknown("length", 4)),
    (LENGTH, ast.Mult(), 2 * MAX_SIZE, NUMBER),
    (LENGTH, ast.Mult(), LENGTH, NUMBER),
    (LENGTH, ast.FloorDiv(), 2, LENGTH),
    (LENGTH, ast.Div(), 0.001, NUMBER),
    (NUMBER, ast.Mult(), 3, NUMBER),
    (None, ast.Add(), LENGTH, NUMBER),
    (PLAIN, ast.FloorDiv(), 2, NUMBER),
    (PLAIN, ast.Add(), 2, Unknown(scale=2)),
    (OUTPUT, ast.Add(), "/maps", Below("output_dir", ("maps",))),
    (OUTPUT, ast.Add(), "maps", UNKNOWN),
    ([0], ast.Mult(), LENGTH, Unknown(scale=2)),
    ("%s/x", ast.Mod(), 3, "3/x"),
    ("%s/x", ast.Mod(), ["a"], Unknown(scale=6)),
    ("%s/x", ast.Mod(), [UNKNOWN], Unknown(scale=6)),
    (7, ast.Mod(), 4, 3),
]


@pytest.mark.parametrize(("left", "sign", "right", "result"), BINARY, ids=_shown)
def test_what_is_known_of_a_result(left: Any, sign: ast.operator, right: Any, result: Any) -> None:
    assert calculated(sign, left, right) == result


@pytest.mark.parametrize(
    ("left", "sign", "right"),
    [
        ("a", ast.Mult(), 10**9),
        ("a", ast.Mult(), NUMBER),
        (PLAIN, ast.Mult(), [0]),
        ([0], ast.Mult(), PLAIN),
        (UNKNOWN, ast.Mult(), LENGTH),
        (UNKNOWN, ast.Mult(), UNKNOWN),
        (Component("a.B"), ast.Mult(), NUMBER),
        (UNKNOWN, ast.Mod(), 1),
        (OUTPUT, ast.Mod(), 1),
        ("%9999d", ast.Mod(), UNKNOWN),
        ("%(a)99999d", ast.Mod(), {"a": 1}),
    ],
    ids=_shown,
)
def test_growth_without_a_bound_is_refused(left: Any, sign: ast.operator, right: Any) -> None:
    with pytest.raises(TooLarge):
        calculated(sign, left, right)


def test_ranges_need_a_bound() -> None:
    assert CALLS["range"](3) == range(3)
    assert CALLS["range"](LENGTH).kind == "value" and CALLS["range"](1, LENGTH, 2).kind == "value"
    for bounds in [(10**6,), (NUMBER,), (PLAIN,), (UNKNOWN,), (0, LENGTH, NUMBER), (LENGTH, 10**9)]:
        with pytest.raises(TooLarge):
            CALLS["range"](*bounds)
