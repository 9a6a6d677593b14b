# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from evaluation_case import COUNT, dataset, evaluate, phantom

from monai_anomaly.handlers import AnomalyMetrics, MetricsWriter, ReportWriter, ScoresWriter

FILES = ("metrics.json", "report.html", "scores.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("data") / "phantom set")


def write_audit(output: Path, folder: Path) -> None:
    scores = np.random.default_rng(0).normal(size=COUNT).tolist()
    audit = {
        "datalist": str(folder / "datalist.json"),
        "images": {"testing": [str(folder / f"images/testing_{i:03d}.png") for i in range(COUNT)]},
        "baselines": {"mean_intensity": {"testing": {"scores": scores}}},
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "audit.json").write_text(json.dumps(audit), encoding="utf-8")


def handlers(output: Path, folder: Path | None, **options: Any) -> list[Any]:
    metrics = [AnomalyMetrics(num_draws=20), ScoresWriter(output, folder), MetricsWriter(output, "Blur", num_draws=20)]
    return [*metrics, ReportWriter(output, folder, **options)]


def written(folder: Path, output: Path, edit: Any = None, **options: Any) -> str:
    evaluate(dataset(folder, edit), handlers(output, folder, **options))
    return (output / "report.html").read_text(encoding="utf-8")


def cards(page: str) -> list[str]:
    return re.findall(r"<article.*?</article>", page, re.DOTALL)


def test_the_page_shows_what_was_evaluated(folder: Path, tmp_path: Path) -> None:
    write_audit(tmp_path, folder)
    page = written(folder, tmp_path, title="My title")
    assert "<h1>My title</h1>" in page and "<span>Blur</span><span>phantom set</span>" in page
    assert "mean intensity" in page and "mean_intensity" not in re.sub(
        r"<script.*?</script>", "", page, flags=re.DOTALL
    )
    shown = {re.search(r'data-file="([^"]*)"', card)[1]: card for card in cards(page)}  # type: ignore[index]
    assert sorted(shown) == [f"images/testing_{i:03d}.png" for i in range(COUNT)]
    for i, file in enumerate(sorted(shown)):
        names = ["input", "reconstruction", "heat map"] + ["mask"] * (i % 2)
        assert re.findall(r'alt="([^"]*) of ', shown[file]) == names
        assert ("anomalous" if i % 2 else "healthy") in shown[file] and f"patient testing_{i:03d}" in shown[file]
    scores = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[1:]
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', page)[1])  # type: ignore[index]
    assert data["scores"] == [float(line.rsplit(",")[-1]) for line in scores]
    assert data["targets"] == [i % 2 for i in range(COUNT)]


def test_without_an_audit_and_with_a_name_of_the_data(folder: Path, tmp_path: Path) -> None:
    page = written(folder, tmp_path, dataset="NIH")
    assert "<h1>Anomaly detection report</h1>" in page and "<span>Blur</span><span>NIH</span>" in page
    assert "trivial baseline" not in page


def test_pixels_that_nobody_annotated_have_no_mask(folder: Path, tmp_path: Path) -> None:
    page = written(folder, tmp_path, lambda items: items[1].pop("label"))
    (card,) = [card for card in cards(page) if "testing_001" in card]
    assert "no mask" in card and "anomalous" in card and 'alt="mask' not in card


def test_numbers_of_pictures(folder: Path, tmp_path: Path) -> None:
    page = written(folder, tmp_path / "a", max_gallery=4)
    assert len(cards(page)) == 4 and "4 of 9 images" in page
    page = written(folder, tmp_path / "b", max_kept=5)
    assert len(cards(page)) == 5 and "5 of 9 images" in page
    page = written(folder, tmp_path / "c", max_kept=0)
    assert not cards(page) and "0 of 9 images" in page
    for bad in ({"max_gallery": -1}, {"max_kept": -2}):
        with pytest.raises(ValueError, match="must not be negative, got .*-"):
            ReportWriter(tmp_path, **bad)


class Anonymous:
    """Takes away what tells images apart."""

    def attach(self, engine: Any) -> None:
        from ignite.engine import Events

        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        for item in engine.state.output:
            item.pop("index")
            item["image"] = item["image"].as_tensor()


def test_images_without_name_or_index_keep_their_own_pictures(folder: Path, tmp_path: Path) -> None:
    samples = dataset(folder)
    evaluate(samples, [*handlers(tmp_path / "named", folder)])
    evaluate(samples, [AnomalyMetrics(num_draws=20), Anonymous(), *handlers(tmp_path / "bare", folder)[1:]])
    sources = []
    for name in ("named", "bare"):
        page = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        sources.append([re.findall(r'src="([^"]*)"', card) for card in cards(page)])
    assert sources[0] == sources[1] and len({tuple(card) for card in sources[0]}) == COUNT
    assert "image 0" in page and f"image {COUNT - 1}" in page


def test_metrics_must_be_written_before(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics.json does not exist: put a MetricsWriter"):
        evaluate(dataset(folder), [ReportWriter(tmp_path)])


def test_a_failed_write_leaves_the_old_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = written(folder, tmp_path)
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if str(target).endswith("report.html"):
            raise OSError("disk is full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        written(folder, tmp_path, title="new")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".run")) == list(FILES)


def run_rank(rank: int, folder: str, output: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{output}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(days=1))
    # uneven shares, out of order, and one image on both, as from a padding sampler
    order = [8, 1, 6, 3, 0, 5] if rank else [7, 2, 4, 0]
    evaluate(dataset(Path(folder)), handlers(Path(output), Path(folder), title="Title"), order)
    dist.destroy_process_group()


def test_two_processes_write_the_files_of_one(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_audit(tmp_path / name, folder)
    written(folder, tmp_path / "one", title="Title")
    mp.spawn(run_rank, args=(str(folder), str(tmp_path / "two")), nprocs=2, join=True)
    for name in FILES:
        one, two = ((tmp_path / part / name).read_text(encoding="utf-8") for part in ("one", "two"))
        assert one == two, name
