# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Print a metrics.json as a table: the method's metrics with their intervals, and the trivial baselines below."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COLUMNS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_best_dice", "pixel_pro")


def cell(entry: Mapping[str, Any] | None) -> str:
    """A value with its interval, as far as they are known."""
    if not entry or entry.get("value") is None:
        return "-"
    low, high = entry.get("low"), entry.get("high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{entry['value']:.3f}{interval}{' *' if entry.get('oracle') else ''}"


def table(content: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the table; metrics that nothing reports are left out."""
    rows = {str(content.get("method", "method")): content["metrics"], **content.get("baselines", {})}
    columns = [name for name in COLUMNS if any(cell(row.get(name)) != "-" for row in rows.values())]
    cells = [["", *columns], *([name, *(cell(row.get(column)) for column in columns)] for name, row in rows.items())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
    if any(entry.get("oracle") for row in rows.values() for entry in row.values()):
        yield "* oracle figure: its threshold was chosen on the test labels"


def main() -> None:
    content = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    print("", *table(content), "", sep="\n")
    for warning in content.get("warnings", []):
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
