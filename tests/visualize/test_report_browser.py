# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_case import METRICS, report_rows

from monai_anomaly.visualize import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e .[test]")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--force-prefers-reduced-motion",  # a smooth scroll would still be under way when a test clicks
)
COUNT = 31
THRESHOLDS = (0, 137, 500, 777, 999, 1000)


def program(variable: str, *names: str) -> str:
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"none of {names} is installed: install Chromium and its driver, or set {variable}")
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    service = webdriver.ChromeService(program("CHROMEDRIVER", "chromedriver"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "a folder" / "report.html"
    rows = report_rows(COUNT)
    rows[5]["target"] = None
    rows[3]["file"] = "/a/folder/" + "deeply_nested_folder_name/" * 12 + "very_long_file_name_" * 8 + ".png"
    scores = {"mean_intensity": [float(i) for i in range(COUNT)], "foreground_area": [0.0] * COUNT}
    write_report(path, METRICS, rows, "D2UE", dataset="data", baseline_scores=scores, value_range=(0.0, 1.0))
    return path


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    browser.set_window_size(1280, 900)
    browser.get(report.as_uri())
    return browser


def rows() -> list[dict[str, Any]]:
    result = report_rows(COUNT)
    result[5]["target"] = None
    return result


def text(driver: Any, identifier: str) -> str:
    return str(driver.find_element("id", identifier).text)


def move_slider(driver: Any, position: int) -> float:
    """Put the slider at one of its 1001 positions as a hand would, and return the threshold that it stands for."""
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    driver.execute_script(script, driver.find_element("id", "threshold"), position)
    scores = [row["score"] for row in rows()]
    if position == 1000:
        return max(scores) + 1e-9
    return min(scores) + (max(scores) - min(scores)) * position / 1000


def kinds(threshold: float) -> dict[str, list[int]]:
    """Positions of the images of each kind at a threshold, by the plain definition."""
    found: dict[str, list[int]] = {"all": [], "healthy": [], "anomalous": [], "missed": [], "alarms": []}
    for i, row in enumerate(rows()):
        flagged, target = row["score"] >= threshold, row["target"]
        found["all"].append(i)
        if target == 0:
            found["healthy"].append(i)
        if target == 1:
            found["anomalous"].append(i)
        if target == 1 and not flagged:
            found["missed"].append(i)
        if target == 0 and flagged:
            found["alarms"].append(i)
    return found


def shown_cards(driver: Any) -> list[int]:
    cards = driver.find_elements("css selector", ".card")
    return [int(card.get_attribute("data-position")) for card in cards if card.is_displayed()]


def test_no_errors_and_no_requests(browser: Any, report: Path) -> None:
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before
    browser.get(report.as_uri())
    move_slider(browser, 300)
    browser.find_element("css selector", ".card .open").click()
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [report.as_uri()]
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [url for url in browser.execute_script(script) if not url.startswith("data:")] == []


@pytest.mark.parametrize("position", THRESHOLDS)
def test_counts_follow_the_slider(opened: Any, position: int) -> None:
    threshold = move_slider(opened, position)
    kind = kinds(threshold)
    missed, alarms = len(kind["missed"]), len(kind["alarms"])
    hits, rejected = len(kind["anomalous"]) - missed, len(kind["healthy"]) - alarms
    assert [int(text(opened, name)) for name in ("tp", "fn", "fp", "tn")] == [hits, missed, alarms, rejected]
    assert text(opened, "sensitivity") == f"{100 * hits / (hits + missed):.1f} %"
    assert text(opened, "specificity") == f"{100 * rejected / (rejected + alarms):.1f} %"
    assert text(opened, "precision") == (f"{100 * hits / (hits + alarms):.1f} %" if hits + alarms else "–")
    flagged = sum(row["score"] >= threshold for row in rows())
    assert text(opened, "flagged") == f"{flagged} of {COUNT} flagged"
    point = opened.find_element("id", "point-roc")
    script = "return [parseFloat(arguments[0].style.left), parseFloat(arguments[0].style.bottom)]"
    expected = [100 * alarms / (alarms + rejected), 100 * hits / (hits + missed)]
    assert opened.execute_script(script, point) == pytest.approx(expected, abs=1e-3)


def test_steps_go_from_image_to_image(opened: Any) -> None:
    distinct = sorted({row["score"] for row in rows()}, reverse=True)
    move_slider(opened, 1000)
    for expected in (*distinct[:3], *distinct[1::-1]):
        going_down = expected < float(opened.execute_script("return document.documentElement.dataset.threshold"))
        opened.find_element("id", "lower" if going_down else "higher").click()
        assert float(opened.execute_script("return document.documentElement.dataset.threshold")) == expected
    number = opened.find_element("id", "threshold-number")
    number.clear()
    number.send_keys("0.5")
    assert text(opened, "flagged").startswith(f"{sum(row['score'] >= 0.5 for row in rows())} of")


@pytest.mark.parametrize("position", [137, 777])
def test_filters_show_what_they_count(opened: Any, position: int) -> None:
    threshold = move_slider(opened, position)
    for name, members in kinds(threshold).items():
        button = opened.find_element("css selector", f"[data-filter={name}]")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert int(button.find_element("class name", "count").text) == len(members)
        assert sorted(shown_cards(opened)) == members
        assert opened.find_element("id", "nothing").is_displayed() == (not members)
        note = f"All {COUNT} images." if name == "all" else f"{len(members)} of the {COUNT} images"
        assert text(opened, "gallery-note").startswith(note)


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("value", [0.5, -1.2346e-05, -123456.7])
def test_a_threshold_is_seen_whole_in_its_box(browser: Any, tmp_path: Path, value: float, width: int) -> None:
    path = tmp_path / "report.html"
    write_report(
        path, METRICS, [dict(row, score=row["score"] * value) for row in report_rows(6)], "AE", threshold=value
    )
    browser.set_window_size(width, 900)
    browser.get(path.as_uri())
    box = browser.find_element("id", "threshold-number")
    assert float(box.get_attribute("value")) == pytest.approx(value, rel=1e-4)
    # the text as wide as it would like to be, beside what the box leaves for it between padding and the arrows
    script = """const style = getComputedStyle(arguments[0]), pen = document.createElement('canvas').getContext('2d');
        pen.font = style.font;
        return [pen.measureText(arguments[0].value).width,
                arguments[0].clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)]"""
    needed, given = browser.execute_script(script, box)
    assert needed + 16 <= given


ORDERS: dict[str, Callable[[dict[str, Any], float], Any]] = {
    "high": lambda row, threshold: -row["score"],
    "low": lambda row, threshold: row["score"],
    "near": lambda row, threshold: abs(row["score"] - threshold),
}


@pytest.mark.parametrize("order", [*ORDERS, "file"])
def test_sorting(opened: Any, order: str) -> None:
    threshold = move_slider(opened, 400)
    opened.find_element("css selector", f"#sort option[value={order}]").click()
    shown, table = shown_cards(opened), rows()
    assert sorted(shown) == list(range(COUNT))
    if order == "file":
        cards = opened.find_elements("css selector", ".card")
        assert [card.get_attribute("data-file") for card in cards][1:] == sorted(
            r["file"] for r in table if r is not table[3]
        )
    else:
        keys = [ORDERS[order](table[i], threshold) for i in shown]
        assert keys == sorted(keys)


def test_cards_say_what_the_threshold_makes_of_them(opened: Any) -> None:
    threshold = move_slider(opened, 500)
    kind = kinds(threshold)
    for card in opened.find_elements("css selector", ".card"):
        i = int(card.get_attribute("data-position"))
        flagged = "flagged" if rows()[i]["score"] >= threshold else "not flagged"
        expected = "missed" if i in kind["missed"] else "false alarm" if i in kind["alarms"] else flagged
        assert card.find_element("class name", "status").text == expected


def test_enlarging_works_by_keyboard(opened: Any) -> None:
    keys = webdriver.Keys
    files = [card.get_attribute("data-file") for card in opened.find_elements("css selector", ".card")]
    first = opened.find_element("css selector", ".card .open")
    opened.execute_script("arguments[0].focus()", first)
    opened.switch_to.active_element.send_keys(keys.ENTER)
    viewer = opened.find_element("id", "viewer")
    assert viewer.is_displayed() and text(opened, "viewer-file") == files[0]
    shots = len(first.find_elements("class name", "shot"))
    assert len(viewer.find_elements("class name", "shot")) == shots > 2
    opened.switch_to.active_element.send_keys(keys.ARROW_RIGHT)
    opened.switch_to.active_element.send_keys(keys.ARROW_RIGHT)
    assert text(opened, "viewer-file") == files[2]
    opened.switch_to.active_element.send_keys(keys.ARROW_LEFT)
    assert text(opened, "viewer-file") == files[1]
    opened.switch_to.active_element.send_keys(keys.ESCAPE)
    assert not viewer.is_displayed()
    focused = opened.switch_to.active_element
    assert focused.get_attribute("aria-label") == f"Enlarge {files[1]}", "the focus is where the eye was"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out(opened: Any, width: int, scheme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        root = opened.execute_script(
            "const r = document.documentElement; return [r.scrollWidth, r.clientWidth, innerWidth]"
        )
        assert root[0] <= root[1] and root[2] == width
        script = """const inside = (node) => node.closest('.scroll, dialog, .skip, svg');
            const out = (box) => box.width && box.right > document.documentElement.clientWidth + 1;
            return [...document.querySelectorAll('body *')]
                .filter((node) => !inside(node) && out(node.getBoundingClientRect())).map((node) => node.className)"""
        assert opened.execute_script(script) == []
        color = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        assert (max(opened.execute_script(color)) < 60) == (scheme == "dark")
        opened.find_element("css selector", ".card .open").click()
        box = opened.find_element("id", "viewer").rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
