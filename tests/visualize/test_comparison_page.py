# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from monai_anomaly.visualize.comparison_page import ComparisonRow, Example, render_comparison

PICTURE = np.zeros((4, 4), np.uint8)
ROWS = [
    ComparisonRow("a<b>", [("0.900", "[0.800, 0.950]"), None], "<script>"),
    ComparisonRow("sharpness", [None, ("0.5", "")], "no learning", is_method=False),
]


def test_texts_are_escaped_and_nothing_is_loaded() -> None:
    example = Example((PICTURE, "<i>x.png"), [(PICTURE, "a 1"), (PICTURE, "b 2")])
    page = render_comparison("T<", ["AUROC", "AP"], ROWS, "n<", ["a", "b"], [example], "e<", {"images": 8})
    for text in ("a&lt;b&gt;", "&lt;script&gt;", "&lt;i&gt;x.png", "T&lt;", "n&lt;", "e&lt;"):
        assert text in page
    assert "<script" not in page and page.count('<img src="data:image/') == 3 and "default-src 'none'" in page
    assert page.count("–") == 2 and page.count('class="method"') == 1 and ">8<" in page


def test_without_examples_there_is_no_part_for_them() -> None:
    page = render_comparison("title", ["AUROC", "AP"], ROWS, "note")
    assert "Examples" not in page and "[0.800, 0.950]" in page


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="each row must have 1 cells, not so: a<b>, sharpness"):
        render_comparison("title", ["AUROC"], ROWS, "note")
    with pytest.raises(ValueError, match=r"each example must have 2 maps, not so: x\.png"):
        render_comparison("title", [], [], "note", ["a", "b"], [Example((PICTURE, "x.png"), [(PICTURE, "")])])
