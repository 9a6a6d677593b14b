# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from monai_anomaly.visualize import plot_histograms, plot_pr, plot_roc
from monai_anomaly.visualize.plots import PLOT_BOX

DRAW = np.random.default_rng(0)
TARGETS = DRAW.integers(0, 2, 60)
SCORES = (DRAW.normal(size=60) + TARGETS).round(1)  # rounded: ties


def drawn_curve(svg: str, size: tuple[float, float], color: str) -> np.ndarray:
    """Points (x, y) in the unit square of the line of a color, read back from the drawing."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {re.escape(color)}; stroke-width: 2.4', svg)
    path = max(paths, key=len)  # the other one is in the legend
    points = np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path), dtype=float)
    left, bottom, width, height = (f * 72 * s for f, s in zip(PLOT_BOX, (*size, *size), strict=True))
    return np.stack([(points[:, 0] - left) / width, (72 * size[1] - points[:, 1] - bottom) / height], 1)


def without_corners(points: np.ndarray) -> np.ndarray:
    """The points of a curve without repeats and without those on a straight line between their neighbors."""
    kept = [points[0]]
    for i in range(1, len(points)):
        if np.abs(points[i] - kept[-1]).max() > 1e-4:
            kept.append(points[i])
    inner = [
        b
        for a, b, c in zip(kept, kept[1:], kept[2:], strict=False)
        if abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])) > 1e-6
    ]
    return np.array([kept[0], *inner, kept[-1]])


def test_roc_is_scikit_learns() -> None:
    svg = plot_roc({"method": SCORES.tolist()}, TARGETS.tolist())
    false_positive, true_positive, _ = roc_curve(TARGETS, SCORES, drop_intermediate=False)
    expected = without_corners(np.stack([false_positive, true_positive], 1))
    assert np.allclose(without_corners(drawn_curve(svg, (4.8, 4.0), "var(--accent, #1d4ed8)")), expected, atol=1e-4)


def test_pr_steps_enclose_scikit_learns_area() -> None:
    svg = plot_pr({"method": SCORES.tolist()}, TARGETS.tolist())
    drawn = drawn_curve(svg, (4.8, 4.0), "var(--accent, #1d4ed8)")
    precision, recall, _ = precision_recall_curve(TARGETS, SCORES)
    for point in np.stack([recall, precision], 1):  # each of its points is on the line
        offset = drawn - point
        start, end = offset[:-1], offset[1:]
        step = end - start
        t = np.clip(-(start * step).sum(1) / np.maximum((step**2).sum(1), 1e-12), 0, 1)
        assert np.linalg.norm(start + t[:, None] * step, axis=1).min() < 2e-4
    area = float(np.sum(np.diff(drawn[:, 0]) * drawn[1:, 1]))
    assert area == pytest.approx(float(-np.sum(np.diff(recall) * precision[:-1])), abs=2e-3)


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    scores = DRAW.normal(size=5000)
    svg = plot_roc({"method": scores.tolist()}, (scores + DRAW.normal(size=5000) > 0).astype(int).tolist())
    points = drawn_curve(svg, (4.8, 4.0), "var(--accent, #1d4ed8)")
    assert len(points) <= 800
    assert np.allclose(points[[0, -1]], [[0, 0], [1, 1]], atol=1e-4)


@pytest.mark.parametrize("plot", [plot_roc, plot_pr])
def test_names_are_shown_as_they_are(plot) -> None:  # type: ignore[no-untyped-def]
    names = ['$x_1$ <b>&"', "_hidden"]
    svg = plot(dict.fromkeys(names, SCORES.tolist()), TARGETS.tolist())
    root = ElementTree.fromstring(svg)
    texts = {"".join(node.itertext()).strip() for node in root.iter("text")}
    assert '$x_1$ <b>&"' in texts and "hidden" in texts
    assert '$x_1$ <b>&"' in root.attrib["aria-label"] and root.attrib["role"] == "img"


@pytest.mark.parametrize("plot", [plot_roc, plot_pr])
@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1]])
def test_one_class_has_no_curve(plot, targets: list[int]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="both classes"):
        plot({"method": [0.1, 0.2, 0.3]}, targets)


def bars(svg: str) -> list[np.ndarray]:
    """Heights of the bins of each outline in the histogram, as a share."""
    height = 72 * 2.8
    found = []
    for path in re.findall(r'<path d="([^"]*)"[^>]*stroke-width: 1.6', svg):
        points = np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path), dtype=float)
        if len(points) > 10:
            found.append(height - points[1:-1:2, 1] - PLOT_BOX[1] * height)
    return found


def test_histogram_shares_and_classes() -> None:
    targets = [*TARGETS.tolist(), None]
    scores = [*SCORES.tolist(), 0.0]
    svg = plot_histograms(scores, targets, bins=12)
    edges = np.linspace(min(scores), max(scores), 13)
    expected = [np.histogram(SCORES[value == TARGETS], edges)[0] / (value == TARGETS).sum() for value in (0, 1)]
    expected.append(np.histogram([0.0], edges)[0])
    outlines = bars(svg)
    assert len(outlines) == 3
    for outline, share in zip(outlines, expected, strict=True):
        assert np.allclose(outline / outline.max(), share / share.max(), atol=1e-3)
    for name in (f"healthy ({(TARGETS == 0).sum()})", f"anomalous ({(TARGETS == 1).sum()})", "unknown (1)"):
        assert name in svg


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1], [None, -1, None]])
def test_histogram_of_one_class_or_one_value(targets: list[int | None]) -> None:
    assert plot_histograms([0.1, 0.2, 0.3], targets).startswith("<svg ")
    assert plot_histograms([0.5, 0.5, 0.5], targets).startswith("<svg ")
    assert plot_histograms([1e-9, 2e-9, 3e-9], targets).startswith("<svg ")


@pytest.mark.parametrize(("scores", "bins"), [([], 4), ([0.1, float("nan")], 4), ([0.1, float("inf")], 4), ([0.1], 0)])
def test_histogram_refuses(scores: list[float], bins: int) -> None:
    with pytest.raises(ValueError, match="finite scores and at least one bin"):
        plot_histograms(scores, [0] * len(scores), bins)


def test_drawings_are_plain_and_repeatable() -> None:
    curves = {"method": SCORES.tolist(), "other": (-SCORES).tolist()}
    for draw in (plot_roc, plot_pr):
        svg = draw(curves, TARGETS.tolist())
        assert svg == draw(curves, TARGETS.tolist())
        assert not re.search(r"https?:|<style|<metadata|<script|DejaVu|width=\"\d+pt", svg)
        assert "viewBox" in svg and "#0102" not in svg, "colors follow the page"
    identifiers = [set(re.findall(r'id="([^"]+)"', draw(curves, TARGETS.tolist()))) for draw in (plot_roc, plot_pr)]
    assert not identifiers[0] & identifiers[1], "two drawings in a page must not share identifiers"
