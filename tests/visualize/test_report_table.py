# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from typing import Any

import pytest
from report_case import METRICS

from monai_anomaly.visualize.report_table import (
    best_baseline,
    compare_with_baselines,
    describe_counts,
    metric_name,
    results_table,
)


def summary(**baselines: Any) -> dict[str, Any]:
    return {**copy.deepcopy(METRICS), **({"baselines": baselines} if baselines else {})}


def test_rows_are_the_method_the_baselines_by_auroc_and_guessing() -> None:
    table = results_table(summary())
    assert [row["name"] for row in table["rows"]] == ["D2UE", "mean intensity", "foreground area", "Guessing"]
    assert [row["kind"] for row in table["rows"]] == ["method", "baseline", "baseline", "chance"]
    assert [column["name"] for column in table["columns"]] == ["Image AUROC", "Image AP", "Pixel AP", "Best Dice"]
    assert [column["oracle"] for column in table["columns"]] == [False, False, False, True]
    assert table["has_oracle"] and table["has_interval"] and table["has_baseline"]


def test_cells_tell_value_and_interval() -> None:
    method, mean, area, chance = (row["cells"] for row in results_table(summary())["rows"])
    assert (method[0]["text"], method[0]["interval"]) == ("0.800", "[0.700, 0.900]")
    assert method[0]["style"] == "--value:0.8000;--low:0.7000;--high:0.9000"
    assert (method[2]["text"], method[2]["interval"]) == ("0.300", "")
    assert (mean[2]["text"], area[3]["text"]) == ("", ""), "baselines have no pixel metrics"
    assert [cell["text"] for cell in chance] == ["0.500", "0.333", "", ""]
    assert [cell["best"] for cell in method] == [True, True, False, False]
    assert not any(cell["best"] for cell in mean + area)


def test_an_inverted_baseline_is_named_so_and_not_flipped() -> None:
    area = results_table(summary())["rows"][2]
    assert area["note"] == "inverted: anomalous images score lower" and area["cells"][0]["text"] == "0.300"
    assert results_table(summary())["rows"][1]["note"] == "no learning"


@pytest.mark.parametrize(
    ("entry", "inverted"),
    [
        ({"value": 0.31, "low": 0.18, "high": 0.48}, True),
        ({"value": 0.31, "low": 0.18, "high": 0.52}, False),
        ({"value": 0.31, "low": None, "high": None}, True),
        ({"value": 0.5, "low": None, "high": None}, False),
        ({"value": None, "low": None, "high": None}, False),
    ],
)
def test_an_inverted_method_is_named_so_unless_it_may_be_chance(entry: dict[str, Any], inverted: bool) -> None:
    found = compare_with_baselines({"image_auroc": entry}, {})
    method, *_ = results_table({"method": "m", "metrics": {"image_auroc": entry}})["rows"]
    assert method["note"] == ("inverted: anomalous images score lower" if inverted else "")
    assert [sentence["kind"] for sentence in found] == ["alarm"] * inverted
    assert all("inverted (image AUROC 0.310)" in sentence["text"] for sentence in found)


def test_undefined_values_and_empty_results() -> None:
    metrics = {"image_auroc": {"value": None, "low": None, "high": None}, "my_metric": {"value": float("nan")}}
    table = results_table({"method": "m", "metrics": metrics})
    assert [cell["text"] for cell in table["rows"][0]["cells"]] == ["", ""]
    assert table["columns"][1]["name"] == metric_name("my_metric") == "My metric"
    assert results_table({"metrics": {}})["rows"] == []


def sentences(auroc: float, **high: float) -> list[dict[str, str]]:
    baselines = {"mean_intensity": {"image_auroc": {"value": auroc, "low": 0.1, **high}}}
    return compare_with_baselines(METRICS["metrics"], baselines)


@pytest.mark.parametrize(
    ("auroc", "verdict"), [(0.85, "(0.850) is better than the method (0.800)."), (0.8, "is as good as the method")]
)
def test_a_baseline_that_is_no_worse_raises_an_alarm(auroc: float, verdict: str) -> None:
    (sentence,) = sentences(auroc)
    assert sentence["kind"] == "alarm"
    assert (
        sentence["text"].startswith("Image AUROC: the trivial baseline “mean intensity”")
        and verdict in sentence["text"]
    )


def test_a_worse_baseline_is_named_with_whether_the_intervals_overlap() -> None:
    (apart,), (overlapping,) = sentences(0.6, high=0.69), sentences(0.6, high=0.71)
    assert apart["kind"] == overlapping["kind"] == "plain"
    assert apart["text"].endswith("the best trivial baseline “mean intensity” 0.600.")
    assert overlapping["text"].endswith("0.600, and their intervals overlap.")


def test_a_baseline_read_backwards_raises_an_alarm_only_when_it_would_win() -> None:
    assert len(sentences(0.25)) == 1
    _, inverted = sentences(0.15)
    assert inverted["kind"] == "alarm"
    assert "“mean intensity” is inverted (image AUROC 0.150)" in inverted["text"] and "reach 0.850" in inverted["text"]


def test_nothing_to_compare_gives_no_sentence() -> None:
    assert compare_with_baselines({}, METRICS["baselines"]) == []
    assert compare_with_baselines(METRICS["metrics"], {}) == []
    assert best_baseline({"a": {"image_auroc": {"value": None}}, "b": {}}, "image_auroc") is None


def test_counts() -> None:
    facts = {fact["name"]: fact["value"] for fact in describe_counts({**METRICS["counts"], "images": 12345})}
    assert facts == {
        "images": "12,345",
        "healthy": "8",
        "anomalous": "4",
        "patients": "11",
        "prevalence": "33.3 %",
    }


def test_figures_that_look_equal_are_called_equal() -> None:
    measured = summary(mean_intensity={"image_auroc": {"value": 0.8004, "low": 0.7, "high": 0.9}})
    (sentence,) = compare_with_baselines(measured["metrics"], measured["baselines"])
    assert "(0.800) is as good as the method (0.800)" in sentence["text"]
    method, baseline = (row["cells"][0] for row in results_table(measured)["rows"][:2])
    assert method["best"] and baseline["best"]
    just_below = summary(mean_intensity={"image_auroc": {"value": 0.7996, "low": 0.7, "high": 0.9}})
    (sentence,) = compare_with_baselines(just_below["metrics"], just_below["baselines"])
    assert sentence["kind"] == "alarm" and "as good as" in sentence["text"]


def test_a_mirrored_figure_that_looks_equal_counts_as_no_worse() -> None:
    measured = summary(mean_intensity={"image_auroc": {"value": 0.2004, "low": 0.1, "high": 0.3}})
    texts = [sentence["text"] for sentence in compare_with_baselines(measured["metrics"], measured["baselines"])]
    assert any("would reach 0.800, no worse than the method" in text for text in texts)
