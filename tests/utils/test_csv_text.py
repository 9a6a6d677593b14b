# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
from itertools import product
from pathlib import Path

import pytest

from monai_anomaly.utils import csv_text, escape_cell, read_csv, unescape_cell

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "-", "=cmd|' /C calc'!A0"]
PLAIN = ["", "a.png", "a=1", "'", "'a'", "1", " =1", "é.png"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_texts(text: str) -> None:
    assert escape_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_plain_texts_stay(text: str) -> None:
    assert escape_cell(text) == text == unescape_cell(text)


@pytest.mark.parametrize("value", [-0.5, -1, 1e-300, None, True])
def test_numbers_stay_numbers(value: object) -> None:
    assert escape_cell(value) is value


def test_every_text_comes_back() -> None:
    for letters in product("'=a-\t", repeat=4):
        text = "".join(letters)
        escaped = escape_cell(text)
        assert unescape_cell(escaped) == text
        assert escaped.lstrip("'") == escaped or escaped[0] == "'"
        assert escaped[:1] not in ("=", "-", "\t")


def test_a_table_comes_back(tmp_path: Path) -> None:
    rows = [{"name": text, "value": -1.5} for text in [*FORMULAS, *PLAIN]]
    (tmp_path / "table.csv").write_text(csv_text(rows, ["name", "value"]), encoding="utf-8", newline="")
    assert read_csv(tmp_path / "table.csv") == [{"name": row["name"], "value": "-1.5"} for row in rows]


def test_other_readers_see_no_formula() -> None:
    """The obvious second opinion: Python's own reader, and the first letters that OWASP lists."""
    rows = [{"=name": text, "more": 1} for text in FORMULAS]
    cells = [cell for row in csv.reader(io.StringIO(csv_text(rows, ["=name"]), newline="")) for cell in row]
    assert len(cells) == len(FORMULAS) + 1
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r\n"]
