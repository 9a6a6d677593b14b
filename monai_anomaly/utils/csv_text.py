# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""CSV tables that a spreadsheet shows and does not calculate (OWASP, "CSV Injection")."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# what spreadsheets take for a formula, wide letters of East Asian writing among them, behind any escapes of ours
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def escape_cell(value: Any) -> Any:
    """Text with an apostrophe before it where a spreadsheet would take it for a formula; all else as it is.

    A number stays a number, a negative one too. :func:`unescape_cell` gives back every text exactly.

    Args:
        value: content of a cell.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def unescape_cell(text: str) -> str:
    """The text that :func:`escape_cell` was given.

    Args:
        text: content of a cell that was read.
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A table as CSV, its texts escaped; floats are written so that they read back equal, None is an empty cell.

    Args:
        rows: one mapping a row; keys that are no column are left out.
        columns: names of the columns, in their order.
    """
    table = [columns, *([row.get(column) for column in columns] for row in rows)]
    return "".join(_line([escape_cell(cell) for cell in cells]) for cells in table)


def _line(cells: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\r\n").writerow(cells)  # so that cells with either of these are quoted
    return stream.getvalue().removesuffix("\r\n") + "\n"


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a file that :func:`csv_text` made, as they were before it escaped them.

    Args:
        path: the file.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        return [{unescape_cell(key): unescape_cell(value or "") for key, value in row.items() if key} for row in rows]
