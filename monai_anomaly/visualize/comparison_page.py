# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .report_table import describe_counts
from .thumbnails import encode_data_uri

__all__ = ["ComparisonRow", "Example", "render_comparison"]

_TEMPLATES = Path(__file__).parent / "templates"


class ComparisonRow(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the method or baseline.
        cells: one a column: text of the value and of its interval, or None.
        note: what stands below the name.
        is_method: False for what needs no learning.
    """

    name: str
    cells: Sequence[tuple[str, str] | None]
    note: str = ""
    is_method: bool = True


class Example(NamedTuple):
    """One image: its picture and those of its maps, one a method, each with a line of text."""

    image: tuple[np.ndarray, str]
    maps: Sequence[tuple[np.ndarray, str]]


def render_comparison(
    title: str,
    columns: Sequence[str],
    rows: Sequence[ComparisonRow],
    note: str,
    methods: Sequence[str] = (),
    examples: Sequence[Example] = (),
    examples_note: str = "",
    counts: Mapping[str, Any] | None = None,
) -> str:
    """Lay out a comparison of methods as a single HTML page that needs no network, no other file and no script.

    Args:
        title: heading of the page.
        columns: headings of the table.
        rows: methods, the best first, and baselines.
        note: what the table shows and how far it can be trusted.
        methods: headings of the maps.
        examples: images with a map of each method, (H, W) or (H, W, 3) uint8.
        examples_note: how they were chosen, and what their colors mean.
        counts: as in ``metrics.json``.

    Raises:
        ValueError: when a row has not a cell for each column, or an example not a map for each method.

    Returns:
        HTML text.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .. import __version__

    if wrong := [row.name for row in rows if len(row.cells) != len(columns)]:
        raise ValueError(f"each row must have {len(columns)} cells, not so: {', '.join(wrong)}.")
    if wrong := [example.image[1] for example in examples if len(example.maps) != len(methods)]:
        raise ValueError(f"each example must have {len(methods)} maps, not so: {', '.join(wrong)}.")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=FileSystemLoader(_TEMPLATES)
    )
    return environment.get_template("comparison.html.jinja").render(
        title=title,
        columns=columns,
        rows=[_row(row) for row in rows],
        note=note,
        methods=methods,
        examples=[{"panels": [_panel(*panel) for panel in (example.image, *example.maps)]} for example in examples],
        examples_note=examples_note,
        facts=describe_counts(counts or {}),
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),  # a file of this package
        version=__version__,
    )


def _row(row: ComparisonRow) -> dict[str, Any]:
    cells = [None if cell is None else {"value": cell[0], "interval": cell[1]} for cell in row.cells]
    return {"name": row.name, "note": row.note, "kind": "method" if row.is_method else "baseline", "cells": cells}


def _panel(pixels: np.ndarray, text: str) -> dict[str, str]:
    return {"source": encode_data_uri(pixels), "text": text}
