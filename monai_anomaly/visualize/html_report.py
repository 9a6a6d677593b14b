# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.atomic import write_text
from .gallery import select_gallery
from .overlay import colorize
from .plots import PLOT_BOX, plot_histograms, plot_pr, plot_roc
from .report_table import baseline_name, best_baseline, compare_with_baselines, describe_counts, results_table
from .thumbnails import encode_data_uri

__all__ = ["PANELS", "render_report", "write_report"]

#: Pictures of one image in the gallery: key in ``thumbnails`` and caption.
PANELS = {"image": "input", "reconstruction": "reconstruction", "heatmap": "heat map", "mask": "mask"}
#: Stands below the title of a method that learned from what it is judged on.
TRANSDUCTIVE_MARK = "transductive: learned from the test images themselves"
_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST_FOLDER = 40
_TARGETS = {0: "healthy", 1: "anomalous"}
_ALLOWED_IMAGES = ("data:image/webp;base64,", "data:image/png;base64,", "data:image/jpeg;base64,")


def _target(row: Mapping[str, Any]) -> int | None:
    target = row.get("target")
    return int(target) if target in (0, 1) else None


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for position, row in enumerate(rows):
        score = row.get("score")
        if "file" not in row or not isinstance(score, int | float) or not math.isfinite(score):
            message = (
                f"row {position} of {len(rows)} needs 'file' and a finite 'score', got {dict(row, thumbnails=None)}."
            )
            raise ValueError(message + " A score that is not finite comes from the inferer: check the image it names.")


def _source(picture: Any, file: str) -> str:
    if isinstance(picture, np.ndarray):
        return encode_data_uri(picture)
    if isinstance(picture, str) and picture.startswith(_ALLOWED_IMAGES):
        return picture
    raise ValueError(
        f"thumbnail of {file} must be a uint8 array or a PNG, JPEG or WebP data address, got {picture!r:.60}."
    )


def _short(value: float) -> str:
    return f"{value:.4g}"


def _choose_cards(rows: Sequence[Mapping[str, Any]], max_gallery: int, max_bytes: int) -> dict[int, dict[str, str]]:
    """Pictures of the rows shown by their positions, sorted by score; as many of the choice as the budget allows."""
    pictured = [i for i, row in enumerate(rows) if row.get("thumbnails")]
    chosen = select_gallery([rows[i]["score"] for i in pictured], [_target(rows[i]) for i in pictured], max_gallery)
    kept: dict[int, dict[str, str]] = {}
    used = 0
    for i in (pictured[position] for position in chosen):
        pictures = rows[i]["thumbnails"].items()
        sources = {key: _source(picture, rows[i]["file"]) for key, picture in pictures if picture is not None}
        used += sum(map(len, sources.values()))
        if used > max_bytes:
            break
        kept[i] = sources
    return {i: kept[i] for i in sorted(kept, key=lambda i: (-rows[i]["score"], i))}


def _split_file(file: str) -> tuple[str, str]:
    """Folder and name of a file; of a long folder only the end, which tells files apart."""
    folder, slash, name = file.rpartition("/")
    shown = folder if len(folder) <= _LONGEST_FOLDER else "…" + folder[-_LONGEST_FOLDER:]
    return shown + slash, name


def _cards(rows: Sequence[Mapping[str, Any]], chosen: Mapping[int, Mapping[str, str]]) -> list[dict[str, Any]]:
    used = [key for key in PANELS if any(key in sources for sources in chosen.values())]
    cards = []
    for i, sources in chosen.items():
        row, target = rows[i], _target(rows[i])
        kind = "unknown" if target is None else _TARGETS[target]
        folder, name = _split_file(str(row["file"]))
        nothing = {"mask": "healthy: nothing annotated"} if target == 0 else {}
        panels = [
            {"name": PANELS[key], "source": sources.get(key), "empty": nothing.get(key, f"no {PANELS[key]}")}
            for key in used
        ]
        cards.append(
            {
                "position": i,
                "file": str(row["file"]),
                "folder": folder,
                "name": name,
                "patient": str(row.get("patient") or ""),
                "note": str(row.get("note") or ""),
                "score": _short(row["score"]),
                "target": kind if target is not None else "target unknown",
                "target_kind": kind,
                "panels": panels,
            }
        )
    return cards


def _curves(
    summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], baseline_scores: Mapping[str, Sequence[float]]
) -> list[dict[str, str]]:
    labeled = [i for i, row in enumerate(rows) if _target(row) is not None]
    targets = [int(rows[i]["target"]) for i in labeled]
    if len(set(targets)) < 2:
        return []
    method = str(summary.get("method") or "method")
    curves = {method: [float(rows[i]["score"]) for i in labeled]}
    usable = {name: scores for name, scores in baseline_scores.items() if len(scores) == len(rows)}
    best = best_baseline({name: summary.get("baselines", {}).get(name, {}) for name in usable}, "image_auroc")
    if best is not None:
        scores = np.asarray([usable[best[0]][i] for i in labeled], dtype=np.float64)
        if np.isfinite(scores).all():
            name = baseline_name(best[0])
            curves[name if name != method else f"{name} (baseline)"] = scores.tolist()
    note = "" if best is None else "Dashed: the best baseline that needs no learning. "
    ring = "The ring is the threshold chosen below."
    return [
        {"id": "roc", "name": "ROC curve", "svg": plot_roc(curves, targets), "note": note + ring},
        {
            "id": "pr",
            "name": "Precision and recall",
            "svg": plot_pr(curves, targets),
            "note": "Gray line: prevalence. " + ring,
        },
    ]


def _starting_threshold(rows: Sequence[Mapping[str, Any]], threshold: float | None, origin: str) -> tuple[float, str]:
    if threshold is not None:
        return float(threshold), f"The slider starts at {_short(threshold)}{f' ({origin})' if origin else ''}. "
    healthy = [row["score"] for row in rows if _target(row) == 0]
    chosen = float(np.quantile(healthy or [row["score"] for row in rows], 0.95))
    among = "the healthy images of this very set" if healthy else "all images"
    return chosen, f"The slider starts at the 95th percentile of {among}. "


def _scale(value_range: tuple[float, float] | None, colormap: str, note: str) -> dict[str, str] | None:
    if value_range is None:
        return None
    stops = (colorize(np.linspace(0, 1, 9), (0, 1), colormap) * 255).round().astype(int)
    style = f"background: linear-gradient(90deg, {', '.join(f'rgb({r} {g} {b})' for r, g, b in stops)})"
    return {"low": _short(value_range[0]), "high": _short(value_range[1]), "style": style, "note": note}


def _filters(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    filters = [
        ("all", "All"),
        ("healthy", "Healthy"),
        ("anomalous", "Anomalous"),
        ("missed", "Missed"),
        ("alarms", "False alarms"),
    ]
    shown = filters if any(_target(row) is not None for row in rows) else filters[:1]
    return [{"id": identifier, "name": name} for identifier, name in shown]


def _threshold_part(rows: Sequence[Mapping[str, Any]], threshold: float | None, origin: str) -> dict[str, Any]:
    if not rows:
        return {
            "histogram": "",
            "threshold_note": "",
            "data": {"scores": [], "targets": [], "threshold": 0.0},
            "num_labeled": 0,
        }
    scores, targets = [float(row["score"]) for row in rows], [_target(row) for row in rows]
    start, note = _starting_threshold(rows, threshold, origin)
    labeled = sum(target is not None for target in targets)
    note += "An image is flagged when its score is at least the threshold. "
    if labeled:
        note += "A threshold picked here is picked on the test labels: use it to look around, not as a result."
    return {
        "histogram": plot_histograms(scores, targets),
        "threshold_note": note,
        "data": {"scores": scores, "targets": targets, "threshold": start},
        "num_labeled": f"{labeled:,}",
    }


def _gallery_note(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total:,} images."
    return (
        f"{shown:,} of {total:,} images: of each class the highest and lowest scores and an even spread between. "
        "All counts above are over all images; the counts on the filter buttons over the pictures shown."
    )


def _environment_texts() -> tuple[str, str]:
    css = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    box = zip(("left", "bottom", "width", "height"), PLOT_BOX, strict=True)
    css += f":root {{ {' '.join(f'--box-{name}: {value};' for name, value in box)} }}\n"
    return css, (_TEMPLATES / "report.js").read_text(encoding="utf-8")


def render_report(
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    title: str,
    *,
    dataset: str | None = None,
    date: str | None = None,
    baseline_scores: Mapping[str, Sequence[float]] | None = None,
    value_range: tuple[float, float] | None = None,
    value_range_note: str = "one color scale for all images",
    colormap: str = "inferno",
    threshold: float | None = None,
    threshold_origin: str = "",
    max_gallery: int = 200,
    max_bytes: int = 12_000_000,
) -> str:
    """Lay out one evaluation as a single self-contained HTML page: no network, no other file, no third-party script.

    Args:
        metrics: content of ``metrics.json``: ``method``, ``metrics``, ``baselines``, ``counts``, ``warnings``,
            ``settings``; with ``transductive`` true, the page is marked below its title.
        rows: one mapping per image: ``file``, ``score`` (finite, larger is more abnormal), optional ``target`` (0, 1,
            else unknown), ``patient``, ``note`` (what its pictures show), and ``thumbnails``, a mapping from the keys
            of :data:`PANELS` to a (H, W) or (H, W, 3) uint8 array, to a PNG, JPEG or WebP ``data:`` address, or to
            None.
        title: heading and title of the page.
        dataset: name of the data set, default left out.
        date: date to print, default left out, so that equal results give equal files.
        baseline_scores: baseline name to one score per row, for the curves; the best baseline is drawn.
        value_range: map values at the two ends of the color scale that the heat maps were drawn with.
        value_range_note: how that range came about.
        colormap: matplotlib color map that the heat maps were drawn with.
        threshold: where the slider starts; default the 95th percentile of the healthy images, which is said.
        threshold_origin: where ``threshold`` comes from, for instance "95th percentile of the healthy validation
            images".
        max_gallery: largest number of images with a picture, at least 0; see :func:`select_gallery` for the choice.
        max_bytes: budget for all pictures together; images beyond it are left out of the gallery, and the page says so.

    Raises:
        ValueError: a row lacks its file or a finite score, or a thumbnail is not a picture.

    Returns:
        HTML text.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .. import __version__

    _check_rows(rows)
    table = results_table(metrics)
    chosen = _choose_cards(rows, max_gallery, max_bytes)
    css, script = _environment_texts()
    threshold_part = _threshold_part(rows, threshold, threshold_origin)
    charts = [dict(chart, svg=Markup(chart["svg"])) for chart in _curves(metrics, rows, baseline_scores or {})]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=FileSystemLoader(_TEMPLATES)
    )
    return environment.get_template("report.html.jinja").render(
        title=title,
        marks=[TRANSDUCTIVE_MARK] if metrics.get("transductive") else [],
        byline=[part for part in (metrics.get("method"), dataset, date) if part and part != title],
        version=__version__,
        facts=describe_counts(metrics.get("counts", {})),
        warnings=list(metrics.get("warnings", [])),
        comparison=compare_with_baselines(metrics.get("metrics", {}), metrics.get("baselines", {})),
        table=table,
        charts=charts,
        scores=bool(rows),
        cards=_cards(rows, chosen),
        gallery_note=_gallery_note(len(chosen), len(rows)),
        filters=_filters(rows),
        scale=_scale(value_range, colormap, value_range_note) if chosen else None,
        settings=[(name, str(value)) for name, value in sorted(metrics.get("settings", {}).items())],
        # these two are files of this package; with the hash, no other script can run in the page
        css=Markup(css),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **dict(threshold_part, histogram=Markup(threshold_part["histogram"])),
    )


def write_report(
    output_path: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    title: str,
    **options: Any,
) -> None:
    """Write the page of :func:`render_report` to a file, all or nothing.

    Args:
        output_path: the HTML file to write.
        metrics: content of ``metrics.json``.
        rows: one mapping per image.
        title: heading of the page.
        options: the keyword arguments of :func:`render_report`.
    """
    write_text(output_path, render_report(metrics, rows, title, **options))
