# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ..functional.curves import precision_recall_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOT_BOX", "figure_to_svg", "plot_histograms", "plot_pr", "plot_roc"]

#: left, bottom, width and height of the drawing area as a fraction of the figure, for what a page lays over it.
PLOT_BOX = (0.125, 0.155, 0.845, 0.80)
#: Stand-ins that become CSS colors in the SVG, so one drawing follows the light and the dark scheme of its page.
_CSS_COLORS = {
    "#010203": "var(--text-soft, #444)",
    "#010204": "var(--line, #ccc)",
    "#010205": "var(--healthy, #3b82a0)",
    "#010206": "var(--anomalous, #c2410c)",
    "#010207": "var(--accent, #1d4ed8)",
    "#010208": "var(--muted, #888)",
}
_TEXT, _GRID, _HEALTHY, _ANOMALOUS, _ACCENT, _MUTED = _CSS_COLORS
#: What a picture inside a page must not bring along: metadata, styles, a fixed size, ids, font names.
_SVG_CLEANING = (
    (r"<metadata>.*?</metadata>", ""),
    (r' xmlns(:xlink)?="[^"]*"', ""),
    (r'<style type="text/css">.*?</style>', ""),
    (r'(<svg [^>]*?)width="[^"]*" ', r"\1"),
    (r'(<svg [^>]*?)height="[^"]*" ', r"\1"),
    (r'<g id="[^"]*"', "<g"),
    (r"font-family: [^;\"]*", "font-family: var(--font, sans-serif)"),
    (r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--font, sans-serif)"),
)
_MAX_CURVE_POINTS = 800


def _new_axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    # imported here because matplotlib takes longer to import than everything else in this package;
    # a Figure of its own needs no pyplot and no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    axes = figure.add_axes(PLOT_BOX)
    axes.set_facecolor("none")
    axes.grid(True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_TEXT, length=0, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_color(_GRID)
        spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def figure_to_svg(figure: Figure, label: str) -> str:
    """Write a figure as SVG for the inside of an HTML page: no prolog, metadata or fonts, described for screen readers.

    Args:
        figure: matplotlib figure.
        label: what the picture shows, for those who cannot see it; plain text.

    Returns:
        one ``<svg>`` element. Equal figures give equal text.
    """
    import matplotlib
    from markupsafe import escape

    buffer = io.StringIO()
    # the salt makes ids repeatable; it holds the label because two drawings in one page must not share ids
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in _SVG_CLEANING:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    for stand_in, color in _CSS_COLORS.items():
        svg = svg.replace(stand_in, color)
    attributes = f'role="img" aria-label="{escape(label)}" stroke-linejoin="round"'
    return svg.replace("<svg ", f"<svg {attributes} ", 1)


def _tensors(scores: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(np.asarray(scores, dtype=np.float64)), torch.as_tensor(np.asarray(targets, dtype=np.int64))


def _thin(*curves: torch.Tensor) -> list[np.ndarray]:
    """Keep at most so many points of a curve, its ends included, that the drawing stays small and looks the same."""
    count = len(curves[0])
    keep = np.unique(np.linspace(0, count - 1, min(count, _MAX_CURVE_POINTS)).round().astype(int))
    return [curve.numpy()[keep] for curve in curves]


def _finish_unit_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.set_xlabel(x_label, color=_TEXT, fontsize=10)
    axes.set_ylabel(y_label, color=_TEXT, fontsize=10)


def _styles(count: int) -> list[dict[str, Any]]:
    """The method first, in a strong line; what it is compared with after it, dashed."""
    first = {"color": _ACCENT, "linewidth": 2.4, "clip_on": False, "zorder": 3}
    others = [{"color": _MUTED, "linewidth": 1.6, "linestyle": style} for style in ("--", "-.", ":")]
    return [first, *(others[i % len(others)] for i in range(count - 1))]


def _plain(name: str) -> str:
    """A legend entry that matplotlib neither typesets as mathematics ($) nor hides (leading underscore)."""
    return name.lstrip("_").replace("$", r"\$")


def _legend(axes: Axes, place: Literal["lower left", "lower right", "upper right"]) -> None:
    axes.legend(loc=place, frameon=False, fontsize=9, labelcolor=_TEXT)


def plot_roc(
    curves: Mapping[str, Sequence[float]], targets: Sequence[int], size: tuple[float, float] = (4.8, 4.0)
) -> str:
    """Draw receiver operating characteristics.

    Args:
        curves: name of the curve to N scores, larger more abnormal; the first is drawn as the main one.
        targets: N targets, 0 or 1, both present.
        size: width and height in inches.

    Raises:
        ValueError: from the curve, when a class is missing or scores are NaN.

    Returns:
        SVG text.
    """
    figure, axes = _new_axes(size)
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
    for (name, scores), style in zip(curves.items(), _styles(len(curves)), strict=True):
        false_positive, true_positive, _ = roc_curve(*_tensors(scores, targets))
        axes.plot(*_thin(false_positive, true_positive), label=_plain(name), **style)
    _finish_unit_axes(axes, "1 − specificity", "sensitivity")
    _legend(axes, "lower right")
    return figure_to_svg(figure, f"ROC curves of {', '.join(curves)}")


def plot_pr(
    curves: Mapping[str, Sequence[float]], targets: Sequence[int], size: tuple[float, float] = (4.8, 4.0)
) -> str:
    """Draw precision-recall curves and, as a thin line, the prevalence, which is what guessing reaches.

    Args:
        curves: name of the curve to N scores, larger more abnormal; the first is drawn as the main one.
        targets: N targets, 0 or 1, both present.
        size: width and height in inches.

    Raises:
        ValueError: from the curve, when a class is missing or scores are NaN.

    Returns:
        SVG text.
    """
    figure, axes = _new_axes(size)
    axes.axhline(float(np.mean(np.asarray(targets, dtype=np.float64))), color=_GRID, linewidth=1.2)
    for (name, scores), style in zip(curves.items(), _styles(len(curves)), strict=True):
        precision, recall, _ = precision_recall_curve(*_tensors(scores, targets))
        axes.plot(*_thin(recall, precision), label=_plain(name), drawstyle="steps-pre", **style)
    _finish_unit_axes(axes, "recall (sensitivity)", "precision")
    _legend(axes, "lower left")
    return figure_to_svg(figure, f"Precision-recall curves of {', '.join(curves)}")


def plot_histograms(
    scores: Sequence[float], targets: Sequence[int | None], bins: int = 40, size: tuple[float, float] = (5.8, 2.8)
) -> str:
    """Draw how the scores of healthy and anomalous images are distributed, each class to its own sum of one.

    Args:
        scores: N finite scores.
        targets: N targets, 0 or 1; any other value is drawn as unknown.
        bins: number of bins over the range of all scores, at least 1.
        size: width and height in inches.

    Raises:
        ValueError: there are no scores, one is not finite, or ``bins`` is smaller than 1.

    Returns:
        SVG text; the horizontal axis goes exactly from the smallest to the largest score (see :data:`PLOT_BOX`).
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all() or bins < 1:
        raise ValueError(f"needs finite scores and at least one bin, got {values.size} scores and {bins} bins.")
    classes = np.asarray([target if target in (0, 1) else -1 for target in targets])
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    figure, axes = _new_axes(size)
    looks = ((0, "healthy", _HEALTHY), (1, "anomalous", _ANOMALOUS), (-1, "unknown", _MUTED))
    for value, name, color in looks:
        chosen = values[classes == value]
        if len(chosen):
            share = np.histogram(chosen, edges)[0] / len(chosen)
            axes.stairs(share, edges, fill=True, color=color, alpha=0.35)
            axes.stairs(share, edges, color=color, linewidth=1.6, label=f"{name} ({len(chosen)})")
    axes.set_xlim(edges[0], edges[-1])
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("anomaly score", color=_TEXT, fontsize=10)
    axes.set_ylabel("share of class", color=_TEXT, fontsize=10)
    _legend(axes, "upper right")
    return figure_to_svg(figure, "Histogram of the anomaly scores of healthy and anomalous images")
