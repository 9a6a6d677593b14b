# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Corruptions in MONAI's pipelines: compositions, caches, loaders with several workers, real images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog import CORRUPTIONS, make, source_of
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.transforms import Compose, OneOf, RandFlipd, Resized

from monai_anomaly.data import AnomalyDataset, EpochSampler, load_datalist, sample_dir
from monai_anomaly.transforms import (
    ImageSource,
    LoadImageCheckedd,
    LungMaskd,
    RandAnatPasted,
    RandAnomalyd,
    RandAnomalyMixtured,
    RandCutPasted,
    RandFPId,
    RandSinkDeformd,
    ScaleSourceRanged,
    many_tasks,
)


def images(count: int = 8, size: int = 32) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 6, 6, generator=generator)
    return [{"image": x} for x in torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")]


def draws(loader: DataLoader) -> list[str]:
    """What was drawn for each sample, in order."""
    return [text for batch in loader for text in batch["params"]]


def test_compose_and_one_of_seed_what_they_hold() -> None:
    def build() -> Compose:
        choice = OneOf([RandCutPasted("image"), RandSinkDeformd("image")], weights=[0.5, 0.5])
        return Compose([RandFlipd("image", prob=0.5, spatial_axis=1), choice]).set_random_state(3)

    first, second = build(), build()
    results = [(first(item), second(item)) for item in images()]
    assert all(bool((a["image"] == b["image"]).all()) for a, b in results)
    assert len({a["params"] for a, _ in results}) == len(results)
    other = build().set_random_state(4)
    assert any(bool((a["image"] != other(item)["image"]).any()) for (a, _), item in zip(results, images(), strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    def run(num_workers: int) -> list[str]:
        data = AnomalyDataset(images(), [], RandCutPasted("image"), seed=1, progress=False)
        sampler = EpochSampler(data, shuffle=True, seed=2)
        return draws(DataLoader(data, batch_size=2, sampler=sampler, num_workers=num_workers))

    assert run(workers) == run(0)
    assert len(set(run(0))) == 8


def test_two_workers_of_a_plain_loader_draw_different_and_reproducible_anomalies() -> None:
    def run(seed: int) -> list[str]:
        data = Dataset(images(), RandSinkDeformd("image"))
        torch.manual_seed(seed)
        return draws(DataLoader(data, batch_size=1, num_workers=2))

    first = run(0)
    assert first == run(0)
    assert len(set(first)) == len(first)  # also between the workers
    assert first != run(1)


def test_caches_hold_the_clean_image(tmp_path: Path) -> None:
    transforms = [Resized("image", spatial_size=(24, 24)), RandCutPasted("image")]
    cached = CacheDataset(images(4), transforms, progress=False)
    kept = PersistentDataset(images(4), transforms, cache_dir=tmp_path)
    for data in (cached, kept):
        first, second = data[0], data[0]
        assert bool((first["clean"] == second["clean"]).all())
        assert first["params"] != second["params"]


def test_sources_are_drawn_by_index_from_the_transform() -> None:
    source = ImageSource(images(5))
    transform = RandFPId("image", source=source).set_random_state(0)
    chosen = [json.loads(transform(item)["params"])[0]["source"] for item in images() * 5]
    assert set(chosen) == set(range(5))
    again = RandFPId("image", source=source).set_random_state(0)
    assert chosen == [json.loads(again(item)["params"])[0]["source"] for item in images() * 5]


def test_source_key_and_names_of_the_results() -> None:
    item = {"scan": images()[0]["image"], "other": images()[1]["image"], "mask": torch.ones(1, 32, 32)}
    transform = RandFPId("scan", source_key="other", foreground_key="mask", label_key="truth", target_key="sick")
    result = transform.set_random_state(0)(item)
    assert {"scan", "other", "mask", "truth", "sick", "clean", "support", "task", "params"} == set(result)
    assert bool((result["clean"] == item["scan"]).all()) and result["sick"] == 1
    assert bool((result["other"] == item["other"]).all())


def test_keys_of_the_dictionary_version() -> None:
    with pytest.raises(ValueError, match="keys must name one image"):
        RandCutPasted(["a", "b"])
    with pytest.raises(ValueError, match="give corruption="):
        RandAnomalyd("image")
    with pytest.raises(KeyError):
        RandCutPasted("image")({"scan": torch.rand(1, 8, 8)})
    passed = RandCutPasted("image", allow_missing_keys=True)({"scan": 1})
    assert passed == {"scan": 1}


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_training_pipeline_on_radiographs_of_the_sample(name: str) -> None:
    folder = Path(sample_dir())
    items = load_datalist(folder / "datalist.json", "training")[:4]
    load = [
        LoadImageCheckedd("image"),
        ScaleSourceRanged("image", 0.0, 1.0),
        Resized("image", spatial_size=(64, 64), mode="area"),
    ]
    plain = Dataset(items, Compose(load))
    kwargs: dict[str, Any] = {"source": ImageSource(items, load)} if CORRUPTIONS[name][1] else {}
    corrupt = RandAnomalyd("image", make(name, **kwargs))
    data = AnomalyDataset(items, load, corrupt, seed=0, progress=False)
    loader = DataLoader(data, batch_size=2, num_workers=0)
    found = 0
    for _ in range(3):
        for start, batch in zip((0, 2), loader, strict=True):
            assert batch["image"].shape == batch["clean"].shape == (2, 1, 64, 64)
            torch.testing.assert_close(batch["clean"][0].as_tensor(), plain[start]["image"].as_tensor())
            changed = (batch["image"] != batch["clean"]).any(1, keepdim=True)
            assert bool((batch["label"][changed] > 0).all())
            found += int(batch["target"].sum())
    assert found > 0
    assert source_of(name, plain[0]["image"]) is None or kwargs


def test_anat_paste_with_masks_cached_by_the_dataset() -> None:
    folder = Path(sample_dir())
    items = load_datalist(folder / "datalist.json", "training")[:3]
    data = CacheDataset(
        items,
        [
            LoadImageCheckedd("image"),
            ScaleSourceRanged("image", 0.0, 1.0),
            LungMaskd("image"),
            RandAnatPasted("image", foreground_key="foreground"),
        ],
        progress=False,
    )
    for sample in (data[0], data[1], data[2]):
        support, lungs = sample["support"], sample["foreground"]
        assert sample["target"] == int(bool(support.any()))
        assert not bool((support & ~lungs.bool()).any())


def test_a_fold_of_many_tasks_trains_a_network(shared_data: Path) -> None:
    files = sorted((shared_data / "brain" / "lgg_flair" / "images").glob("*.png"))[:12]
    items = [{"image": str(path)} for path in files]
    load = [
        LoadImageCheckedd("image"),
        ScaleSourceRanged("image", 0.0, 1.0),
        Resized("image", spatial_size=(48, 48), mode="area"),
    ]
    source = ImageSource(items, load)
    tasks = many_tasks(source, source)
    mixture = RandAnomalyMixtured("image", tasks=[tasks[0], tasks[2], tasks[4]])
    data = AnomalyDataset(items, load, mixture, seed=0, progress=False)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 1, 5, padding=2)
    )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def loss_of(batch: dict[str, Any]) -> torch.Tensor:
        return torch.nn.functional.mse_loss(network(batch["image"].as_tensor()), batch["label"].as_tensor())

    def batch_of(epoch: int) -> dict[str, Any]:
        sampler = EpochSampler(data, shuffle=True, seed=0)
        sampler.set_epoch(epoch)
        return next(iter(DataLoader(data, batch_size=12, sampler=sampler, num_workers=0)))

    held_out = [batch_of(epoch) for epoch in range(100, 104)]
    before = sum(float(loss_of(batch).detach()) for batch in held_out)
    for epoch in range(25):
        loss = loss_of(batch_of(epoch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(float(loss_of(batch).detach()) for batch in held_out) < before
