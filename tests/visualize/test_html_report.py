# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_case import METRICS, report_rows

from monai_anomaly.visualize import encode_data_uri, render_report, write_report

EVIL = "<script>alert('x')</script><img src=http://evil.example/a.png>\"'&"


class Page(HTMLParser):
    """What a browser would find in a page: elements with attributes, and the text of some of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[int, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        self.texts[len(self.elements) - 1] = self.texts.get(len(self.elements) - 1, "") + data

    def having(self, tag: str = "", **attributes: str) -> list[str]:
        """Texts of the elements of a tag with these attributes."""
        return [
            self.texts.get(i, "").strip()
            for i, (name, given) in enumerate(self.elements)
            if tag in ("", name) and all(given.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]


def page(rows: list[dict[str, Any]] | None = None, title: str = "Title", **options: Any) -> str:
    return render_report(METRICS, report_rows() if rows is None else rows, title, **options)


def test_loads_nothing_from_elsewhere() -> None:
    text = page(baseline_scores={"mean_intensity": [0.0] * 12}, value_range=(0.0, 1.0))
    for tag, attributes in Page(text).elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/", "data:,")), (tag, attributes)
    assert not re.search(r"https?:|//[a-z]|@import", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\(['\"]?([^)]*)", text))
    assert len(Page(text).having("script")) == 2, "the page's data and its own script"


def test_policy_lets_only_the_own_script_run() -> None:
    text = page()
    policy = next(given["content"] for tag, given in Page(text).elements if "http-equiv" in given)
    assert "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/=]+';", policy)


def test_what_comes_from_outside_is_text() -> None:
    metrics = copy.deepcopy(METRICS)
    metrics["warnings"], metrics["settings"] = [EVIL] * 8, {EVIL: EVIL}
    metrics["method"] = EVIL
    metrics["baselines"][EVIL] = metrics["baselines"].pop("mean_intensity")
    rows = report_rows()
    for row in rows:
        row |= {"file": EVIL, "patient": EVIL}
    scores = {EVIL: [float(i) for i in range(len(rows))]}
    text = render_report(
        metrics,
        rows,
        "T" + EVIL,
        dataset=EVIL,
        date=EVIL,
        baseline_scores=scores,
        value_range=(0, 1),
        value_range_note=EVIL,
    )
    parsed = Page(text)
    assert "<script>alert" not in text
    assert len(parsed.having("script")) == 2
    assert not [given for tag, given in parsed.elements if "evil" in given.get("src", "") or "onerror" in given]
    assert parsed.having("h1") == ["T" + EVIL] and EVIL in parsed.having("li")
    assert sum(given.get("data-file") == EVIL for _, given in parsed.elements) == len(rows)
    json.loads(parsed.having("script", type="application/json")[0])


def test_equal_results_give_equal_files(tmp_path: Path) -> None:
    write_report(tmp_path / "a.html", METRICS, report_rows(), "Title", value_range=(0, 1))
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == page(value_range=(0, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_thousand_images_stay_small_and_are_counted() -> None:
    draw = np.random.default_rng(0)
    noise = encode_data_uri(draw.integers(0, 256, (192, 192, 3), dtype=np.uint8))  # the worst to compress
    rows = report_rows(1000, side=1)
    for row in rows:
        row["thumbnails"] = {"image": noise, "reconstruction": noise, "heatmap": noise}
    text = page(rows, max_gallery=1000)
    shown = len(Page(text).having("article"))
    assert len(text.encode()) < 15_000_000 and 0 < shown < 1000
    assert f"{shown:,} of 1,000 images" in text
    data = json.loads(Page(text).having("script", type="application/json")[0])
    assert len(data["scores"]) == len(data["targets"]) == 1000
    for row in rows[10:]:
        row["thumbnails"] = None
    assert "10 of 1,000 images" in page(rows)


def test_all_images_shown_is_said() -> None:
    assert "All 12 images." in page()
    assert "3 of 12 images" in page(max_gallery=3)
    assert "0 of 12 images" in page(max_gallery=0) and "color scale" not in page(max_gallery=0, value_range=(0, 1))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "high"])
def test_a_score_that_is_no_number_is_refused_with_its_file(score: Any) -> None:
    rows = report_rows()
    rows[4]["score"] = score
    with pytest.raises(ValueError, match=rf"row 4 of 12 .*finite 'score', got .*{rows[4]['file']}.*check the image"):
        page(rows)
    del rows[4]["score"]
    with pytest.raises(ValueError, match="row 4 of 12"):
        page(rows)


@pytest.mark.parametrize("picture", ["http://a.example/a.png", "data:text/html;base64,AA", np.zeros((4, 4)), 7])
def test_a_thumbnail_that_is_no_picture_is_refused(picture: Any) -> None:
    rows = report_rows()
    rows[2]["thumbnails"]["image"] = picture
    with pytest.raises(ValueError, match=r"thumbnail of images/0010.png must be|pixels must be"):
        page(rows)


def test_title_method_data_set_and_date() -> None:
    def byline(**options: Any) -> list[str]:
        text = page(**options)
        return re.findall(r"<span>(.*?)</span>", "".join(re.findall(r'<p class="byline">(.*?)</p>', text)))

    assert byline() == ["D2UE"]
    assert byline(title="D2UE") == [], "the title says it already"
    assert byline(title="D2UE", dataset="sample", date="2026-01-02") == ["sample", "2026-01-02"]
    assert Page(page(title="My set")).having("title") == ["My set"]


def test_baselines_are_in_the_table_the_verdict_and_the_curves() -> None:
    parsed = Page(page(baseline_scores={"mean_intensity": [float(i) for i in range(12)], "foreground_area": [0.0]}))
    assert "mean intensity" in parsed.having("th", scope="row")
    assert any("“mean intensity” 0.600" in text for text in parsed.having("p", class_="verdict plain"))
    labels = [given["aria-label"] for tag, given in parsed.elements if tag == "svg"]
    assert labels[:2] == ["ROC curves of D2UE, mean intensity", "Precision-recall curves of D2UE, mean intensity"]
    assert parsed.having("span", class_="tag") == ["oracle"]


@pytest.mark.parametrize("target", [0, 1, None])
def test_one_class_or_none(target: int | None) -> None:
    rows = [{**row, "target": target} for row in report_rows()]
    parsed = Page(page(rows))
    assert not parsed.having("figure"), "a curve needs both classes"
    assert len(parsed.having("article")) == 12
    assert len(parsed.having("button", type="button")) > 4
    chip = {0: "healthy", 1: "anomalous", None: "target unknown"}[target]
    kind = "unknown" if target is None else chip
    assert parsed.having("span", class_=f"chip {kind}") == [chip] * 12


def test_nothing_evaluated_is_a_page_too() -> None:
    parsed = Page(render_report({"metrics": {}}, [], "Empty"))
    assert parsed.having("h1") == ["Empty"] and not parsed.having("article") and not parsed.having("svg")


def test_cards_tell_file_patient_score_and_missing_pictures() -> None:
    rows = report_rows()
    rows[0]["file"] = "/a/very/long/folder/that/goes/on/and/on/until/nobody/reads/it/any/more/last.png"
    rows[0]["note"] = "slice 3 of 9"
    parsed = Page(page(rows))
    positions = [int(given["data-position"]) for tag, given in parsed.elements if tag == "article"]
    assert positions == sorted(range(12), key=lambda i: (-rows[i]["score"], i))
    assert parsed.having("span", class_="score") == [f"{rows[i]['score']:.4g}" for i in positions]
    assert [given["data-file"] for tag, given in parsed.elements if tag == "article"] == [
        rows[i]["file"] for i in positions
    ]
    assert [text for text in parsed.having("p", class_="patient") if "slice" in text] == [
        f"patient {rows[0]['patient']} · slice 3 of 9"
    ]
    folders = parsed.having("span", class_="folder")
    assert sorted(folders)[:11] == ["images/"] * 11
    assert max(map(len, folders)) <= 42 and any(text.startswith("…") and text.endswith("any/more/") for text in folders)
    assert parsed.having("span", class_="empty") == ["healthy: nothing annotated"] * 8
    assert sum(tag == "img" for tag, _ in parsed.elements) == 12 * 3 + 4


@pytest.mark.parametrize("given", [None, 0.25])
def test_where_the_slider_starts(given: float | None) -> None:
    rows = report_rows()
    text = page(rows, threshold=given, threshold_origin="chosen on validation")
    start = json.loads(Page(text).having("script", type="application/json")[0])["threshold"]
    if given is None:
        healthy = sorted(row["score"] for row in rows if row["target"] == 0)
        position = 0.95 * (len(healthy) - 1)
        below = int(position)
        expected = healthy[below] + (position - below) * (healthy[below + 1] - healthy[below])
        assert start == pytest.approx(expected) and "95th percentile of the healthy images of this very set" in text
    else:
        assert start == 0.25 and "starts at 0.25 (chosen on validation)" in text


def test_what_learned_from_the_test_images_is_marked_below_the_title() -> None:
    mark = "transductive: learned from the test images themselves"
    assert mark not in page()
    text = render_report({**METRICS, "transductive": True}, report_rows(), "Title")
    assert text.index("<h1>") < text.index(mark) < text.index("</header>")
