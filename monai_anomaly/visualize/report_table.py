# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "baseline_name",
    "best_baseline",
    "compare_with_baselines",
    "describe_counts",
    "metric_name",
    "results_table",
]

_METRIC_NAMES = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "pixel_best_dice": "Best Dice",
    "pixel_pro": "PRO",
}
_FACT_NAMES = {
    "images": "images",
    "healthy": "healthy",
    "anomalous": "anomalous",
    "patients": "patients",
    "prevalence": "prevalence",
    "pixel_prevalence": "pixels annotated",
}


def metric_name(name: str) -> str:
    """Heading of a metric; unknown names are made readable."""
    return _METRIC_NAMES.get(name, name.replace("_", " ").capitalize())


def baseline_name(name: str) -> str:
    """Name of a baseline in words."""
    return name.replace("_", " ").strip()


def _number(entry: Any, field: str = "value") -> float | None:
    value = entry.get(field) if isinstance(entry, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _shown(value: float) -> float:
    """The value as the page prints it: what looks equal there is called equal."""
    return round(value, 3)


def describe_counts(counts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Counts of the data set as name and text, those that are known, in a fixed order."""
    facts = []
    for key, name in _FACT_NAMES.items():
        value = counts.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            text = f"{100 * value:.3g} %" if key.endswith("prevalence") else f"{int(value):,}"
            facts.append({"name": name, "value": text})
    return facts


def best_baseline(baselines: Mapping[str, Any], metric: str) -> tuple[str, float] | None:
    """Name and value of the baseline that is best in ``metric`` as measured; None where none was measured."""
    values = {name: _number(entry.get(metric)) for name, entry in baselines.items()}
    measured = {name: value for name, value in values.items() if value is not None}
    if not measured:
        return None
    name = max(measured, key=lambda key: measured[key])
    return name, measured[name]


def _compare_one(metric: str, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> dict[str, str] | None:
    value, best = _number(metrics.get(metric)), best_baseline(baselines, metric)
    if value is None or best is None:
        return None
    name, reached = best
    heading, other = metric_name(metric), f"trivial baseline “{baseline_name(name)}”"
    if _shown(reached) >= _shown(value):
        verdict = "better than" if _shown(reached) > _shown(value) else "as good as"
        text = f"{heading}: the {other} ({reached:.3f}) is {verdict} the method ({value:.3f})."
        return {"kind": "alarm", "text": text}
    text = f"{heading}: the method reaches {value:.3f}, the best {other} {reached:.3f}"
    low, high = _number(metrics[metric], "low"), _number(baselines[name][metric], "high")
    overlap = low is not None and high is not None and high >= low
    return {"kind": "plain", "text": text + (", and their intervals overlap." if overlap else ".")}


def _compare_inverted(metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> dict[str, str] | None:
    """Say when a baseline read backwards would beat the method; its direction is then chosen on the labels."""
    value = _number(metrics.get("image_auroc"))
    values = {name: _number(entry.get("image_auroc")) for name, entry in baselines.items()}
    mirrored = {name: 1 - auroc for name, auroc in values.items() if auroc is not None and auroc < 0.5}
    if value is None or not mirrored:
        return None
    name = max(mirrored, key=lambda key: mirrored[key])
    if _shown(mirrored[name]) < _shown(value):
        return None
    text = (
        f"“{baseline_name(name)}” is inverted (image AUROC {1 - mirrored[name]:.3f}): read the other way round, a "
        f"direction that only the test labels tell, it would reach {mirrored[name]:.3f}, no worse than the method."
    )
    return {"kind": "alarm", "text": text}


def _is_inverted(entry: Any) -> bool:
    """Whether anomalous images score lower than healthy ones, and not just by chance where an interval tells."""
    value, high = _number(entry), _number(entry, "high")
    return value is not None and max(value, value if high is None else high) < 0.5


def _state_inverted(metrics: Mapping[str, Any]) -> dict[str, str] | None:
    """Say when the method itself is inverted, which no other comparison shows."""
    entry = metrics.get("image_auroc")
    if not _is_inverted(entry):
        return None
    text = (
        f"The method is inverted (image AUROC {_number(entry):.3f}): anomalous images score lower than healthy ones. "
        "Reading it the other way round would be a choice made on the test labels: look at what the images that score "
        "highest have in common, and train for longer."
    )
    return {"kind": "alarm", "text": text}


def compare_with_baselines(metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[dict[str, str]]:
    """Plain sentences on how the method stands against guessing and what needs no learning.

    Args:
        metrics: name to ``{"value", "low", "high", "oracle"}`` of the method.
        baselines: baseline name to name to ``{"value", "low", "high"}``.

    Returns:
        sentences as ``{"kind": "alarm" | "plain", "text": str}``, an alarm where a baseline is as good or better, or
        the method is worse than guessing.
    """
    found = [_state_inverted(metrics)]
    found += [_compare_one(metric, metrics, baselines) for metric in ("image_auroc", "image_ap")]
    found.append(_compare_inverted(metrics, baselines))
    return [sentence for sentence in found if sentence is not None]


def _cell(name: str, entry: Any) -> dict[str, Any]:
    value, low, high = (_number(entry, field) for field in ("value", "low", "high"))
    if value is None:
        return {"column": name, "text": "", "number": None, "best": False}
    known = low is not None and high is not None
    ends = (low, high) if known else (value, value)
    bounded = [min(1.0, max(0.0, number)) for number in (value, *ends) if number is not None]
    style = "--value:{:.4f};--low:{:.4f};--high:{:.4f}".format(*bounded)
    interval = f"[{low:.3f}, {high:.3f}]" if known else ""
    return {
        "column": name,
        "text": f"{value:.3f}",
        "interval": interval,
        "style": style,
        "number": value,
        "best": False,
    }


def _baseline_row(name: str, entry: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    cells = [_cell(column, entry.get(column)) for column in columns]
    return {"name": baseline_name(name), "note": _note(entry, "no learning"), "kind": "baseline", "cells": cells}


def _note(entries: Mapping[str, Any], otherwise: str) -> str:
    return "inverted: anomalous images score lower" if _is_inverted(entries.get("image_auroc")) else otherwise


def _chance_row(counts: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    level = {
        "image_auroc": 0.5,
        "pixel_auroc": 0.5,
        "image_ap": counts.get("prevalence"),
        "pixel_ap": counts.get("pixel_prevalence"),
    }
    cells = [_cell(column, {"value": level.get(column)}) for column in columns]
    return {"name": "Guessing", "note": "", "kind": "chance", "cells": cells}


def _mark_best(rows: list[dict[str, Any]]) -> None:
    for column in range(len(rows[0]["cells"]) if rows else 0):
        cells = [row["cells"][column] for row in rows if row["cells"][column]["number"] is not None]
        top = max((_shown(cell["number"]) for cell in cells), default=None)
        for cell in cells:
            cell["best"] = len(cells) > 1 and _shown(cell["number"]) == top


def results_table(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange the content of ``metrics.json`` as one table: the method, the trivial baselines by AUROC, and guessing.

    Args:
        summary: ``{"method", "metrics", "baselines", "counts"}``.

    Returns:
        ``columns`` and ``rows`` for the report's template.
    """
    metrics, baselines = summary.get("metrics", {}), summary.get("baselines", {})
    known = [name for name in _METRIC_NAMES if name in metrics]
    names = known + sorted(set(metrics) - set(known))
    columns = [{"id": n, "name": metric_name(n), "oracle": bool(metrics[n].get("oracle"))} for n in names]
    if not names:
        return {"columns": [], "rows": []}
    rows = [{"name": summary.get("method", "method"), "note": _note(metrics, ""), "kind": "method"}]
    rows[0]["cells"] = [_cell(name, metrics[name]) for name in names]
    ranked = sorted(baselines, key=lambda name: -(_number(baselines[name].get("image_auroc")) or 0.0))
    rows += [_baseline_row(name, baselines[name], names) for name in ranked]
    _mark_best(rows)
    rows.append(_chance_row(summary.get("counts", {}), names))
    return {
        "columns": columns,
        "rows": rows,
        "has_oracle": any(column["oracle"] for column in columns),
        "has_interval": any(cell.get("interval") for row in rows for cell in row["cells"]),
        "has_baseline": bool(baselines),
    }
