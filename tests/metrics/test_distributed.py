# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The same images on one process and, unevenly, on two give the same metrics to the last bit."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pixel_cases import pixel_case

from monai_anomaly.metrics import ImageAccumulator, PixelAccumulator, summarize_metrics
from monai_anomaly.metrics.gather import gather_strings

IMAGES, SPLIT = 12, 9  # the second rank also repeats two images, as a padding sampler would
REPEATED = [0, 4]
# mode, max_exact_pixels (4400 pixels are annotated, each rank holds fewer), whether images are repeated
CASES = {
    "exact": ("exact", 0, True),
    "auto exact": ("auto", 4400, True),
    "auto streaming": ("auto", 4399, False),
    "streaming": ("streaming", 0, False),
}


def summarize(case: str, rows: list[int]) -> dict[str, Any]:
    maps, masks = pixel_case("heavy tail" if "auto" in case else "ties", images=IMAGES)
    mode, limit, _ = CASES[case]
    pixels, images = PixelAccumulator(mode, limit, keep_patients=True), ImageAccumulator()
    for row in rows:
        patient = [f'patient {row // 2}\t"é"']
        pixels.update(maps[row][None], masks[row][None], patient, [row])
        images.update(maps[row].max(), torch.tensor(1 - row % 2), patient, [row])
    return dict(summarize_metrics(images.gathered(), pixels.gathered(), num_draws=100))


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1 + rank)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(days=1))
    results: dict[str, Any] = {"strings": gather_strings(["a\tb", ""] if rank == 1 else [])}
    for case, (_, _, repeats) in CASES.items():
        rows = list(range(SPLIT)) if rank == 0 else list(range(SPLIT, IMAGES)) + (REPEATED if repeats else [])
        results[case] = summarize(case, rows)
    results["one rank is empty"] = summarize("streaming", list(range(IMAGES)) if rank == 1 else [])
    results["exact, one rank is empty"] = summarize("exact", list(range(IMAGES)) if rank == 1 else [])
    try:
        summarize("streaming", list(range(SPLIT)) if rank == 0 else list(range(SPLIT - 1, IMAGES)))
    except ValueError as error:
        results["error"] = str(error)
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_rank, args=(str(folder),), nprocs=2, join=True)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_equal_one(ranks: list[dict[str, Any]], case: str) -> None:
    alone = json.loads(json.dumps(summarize(case, list(range(IMAGES)))))
    assert len(alone["metrics"]) == 6
    assert alone["settings"]["pixel_mode"] == case.split()[-1]
    for result in ranks:
        assert result[case] == alone


def test_a_rank_may_be_empty(ranks: list[dict[str, Any]]) -> None:
    for name, case in (("one rank is empty", "streaming"), ("exact, one rank is empty", "exact")):
        alone = json.loads(json.dumps(summarize(case, list(range(IMAGES)))))
        assert all(result[name] == alone for result in ranks)


def test_streaming_refuses_an_image_on_two_ranks(ranks: list[dict[str, Any]]) -> None:
    for result in ranks:
        assert f"[{SPLIT - 1}]" in result["error"] and "even_divisible=False" in result["error"]


def test_strings_survive_the_gathering(ranks: list[dict[str, Any]]) -> None:
    assert all(result["strings"] == ["a\tb", ""] for result in ranks)
