# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..utils import Keys, read_user_text
from .datalist import SECTIONS, TESTING, TRAINING, UNLABELED, VALIDATION, Item, PathLike, relocated, write_datalist

DEFAULT_SECTIONS = {
    "train_normal": TRAINING,
    "unlabeled": UNLABELED,
    "val_normal": VALIDATION,
    "val": VALIDATION,
    "test": TESTING,
    **{name: name for name in SECTIONS},
}
DEFAULT_COLUMNS = {Keys.IMAGE: "image", Keys.LABEL: "mask", Keys.TARGET: "label", Keys.PATIENT: "patient"}
Conditions = Sequence[str] | Mapping[str, str]


def convert_csv(
    index: PathLike,
    output: PathLike,
    where: Conditions = (),
    where_eval: Conditions = (),
    split_column: str = "split",
    columns: Mapping[str, str] | None = None,
    section_of: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
    base_dir: PathLike | None = None,
    unlabeled_targets: bool = False,
) -> dict[str, int]:
    """Write a datalist from a CSV with one row an image.

    Args:
        index: CSV file with a header; its paths are relative to its folder.
        output: datalist JSON to write.
        where: conditions ``"column=value"`` that a row must meet; several for one column: one of them must hold.
        where_eval: the same, for rows of ``validation`` and ``testing`` only.
        split_column: column that decides the section.
        columns: which column holds ``image``, ``label`` (mask), ``target``, ``patient`` and, if named, ``foreground``;
            default {"image": "image", "label": "mask", "target": "label", "patient": "patient"}.
        section_of: section of further values of ``split_column``; known are "train_normal" (training), "unlabeled",
            "val_normal" and "val" (validation), "test" (testing), and the sections' own names.
        extra: further numeric columns to carry over.
        base_dir: folder the written paths are relative to (later given as ``dataset_dir``); None: that of the CSV.
        unlabeled_targets: whether to write the targets of ``unlabeled`` too, where the CSV has them, to draw sets of a
            chosen ratio and to report the purity of pseudo-labels; loading takes them away. Default False.

    Returns:
        Number of items of each section.

    Raises:
        ValueError: naming file, row and remedy, for unknown or repeated columns, rows of another length than the
            header, an image with two rows, unknown splits, bad numbers, a file that is not UTF-8,
            or when no row is left.
    """
    path = Path(index)
    names = {**DEFAULT_COLUMNS, **(columns or {})}
    sections_of = {**DEFAULT_SECTIONS, **(section_of or {})}
    rows = _read_rows(path)
    conditions, eval_conditions = _parse(where), _parse(where_eval)
    needed = {split_column, names[Keys.IMAGE], names[Keys.TARGET], *extra, *conditions, *eval_conditions}
    needed |= set((columns or {}).values())
    if missing := sorted(needed - rows[0][1].keys()):
        raise ValueError(f"CSV {path} has no column {missing}, only {list(rows[0][1])}: name existing columns")
    sections: dict[str, list[Item]] = {name: [] for name in SECTIONS}
    shift = os.path.relpath(path.parent, base_dir) if base_dir is not None else "."
    lines: dict[str, int] = {}
    for line, row in rows:
        if not _meets(row, conditions):
            continue
        section = sections_of.get(row[split_column])
        if section not in sections:
            raise ValueError(
                f"CSV {path}, line {line}: {split_column} is {row[split_column]!r}; known are {sorted(sections_of)}: "
                "map it to a section with section_of (--section VALUE=SECTION)"
            )
        if section in (VALIDATION, TESTING) and not _meets(row, eval_conditions):
            continue
        item = _item(row, names, section, extra, shift, f"CSV {path}, line {line}")
        if section == UNLABELED and unlabeled_targets and row[names[Keys.TARGET]]:
            item[Keys.TARGET] = _target(row[names[Keys.TARGET]], names[Keys.TARGET], f"CSV {path}, line {line}")
        before = lines.setdefault(os.path.normpath(item[Keys.IMAGE]), line)
        if before != line:
            raise ValueError(
                f"CSV {path}, line {line}: image {row[names[Keys.IMAGE]]} stands in line {before} already: "
                "keep one row an image"
            )
        sections[section].append(item)
    write_datalist(output, sections)
    return {name: len(items) for name, items in sections.items() if items}


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return each row and the line it ends in."""
    text = read_user_text(path, "CSV", "give the path of a CSV file with a header")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"CSV {path}, line {reader.line_num}: {error}: correct this line") from None
    if len(lines) < 2:
        raise ValueError(f"CSV {path} has no rows: give a CSV file with a header and one row an image")
    (_, header), *rows = lines
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise ValueError(f"CSV {path} has several columns {twice[0]!r}: rename or remove all but one")
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(
                f"CSV {path}, line {line}: {len(cells)} cells, but the header has {len(header)}: put cells with commas "
                "into quotes, or fill in what is missing"
            )
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in rows]


def _parse(conditions: Conditions) -> dict[str, set[str]]:
    """Return the allowed values of each column."""
    pairs = [f"{k}={v}" for k, v in conditions.items()] if isinstance(conditions, Mapping) else list(conditions)
    allowed: dict[str, set[str]] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals or not column:
            raise ValueError(f"a condition must be column=value, got {pair!r}")
        allowed.setdefault(column, set()).add(value)
    return allowed


def _meets(row: Mapping[str, str], conditions: Mapping[str, set[str]]) -> bool:
    return all(row[column] in values for column, values in conditions.items())


def _item(
    row: Mapping[str, str], columns: Mapping[str, str], section: str, extra: Sequence[str], shift: str, place: str
) -> Item:
    image = row[columns[Keys.IMAGE]]
    if not image:
        raise ValueError(f"{place}: no image path: fill in column {columns[Keys.IMAGE]!r}")
    item: Item = {Keys.IMAGE: relocated(image, shift)}
    hidden = section == UNLABELED  # no method may see what these images show
    if not hidden:
        item[Keys.TARGET] = _target(row[columns[Keys.TARGET]], columns[Keys.TARGET], place)
    for key in (Keys.LABEL, Keys.FOREGROUND):
        file = row.get(columns.get(key, ""), "")
        if file and not (hidden and key == Keys.LABEL):
            item[key] = relocated(file, shift)
    if patient := row.get(columns[Keys.PATIENT], ""):
        item[Keys.PATIENT] = patient
    return item | {name: _number(row[name], name, place) for name in extra}


def _number(text: str, column: str, place: str) -> int | float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{place}: {column} is {text!r}; it must be a number, or not be asked for as extra") from None
    if not math.isfinite(value):
        raise ValueError(f"{place}: {column} is {text!r}; it must be finite")
    return int(value) if value.is_integer() and "." not in text else value


def _target(text: str, column: str, place: str) -> int:
    if text.strip() not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"{place}: {column} is {text!r}; it must be 0 (healthy) or 1 (anomalous)")
    return int(float(text))
