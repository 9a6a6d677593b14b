# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from torch import Tensor, nn

from monai_anomaly.data import AnomalyDataset, EncodedDataset, EpochSampler, encode_dataset
from monai_anomaly.networks.nets import ConvolutionalEncoder, EncoderClassifier

NUMBER, EPOCHS = 7, 3


class MakeImage(Transform):
    """An image of the number in the sample, with meta data as images from files have."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"image": MetaTensor(torch.arange(16.0).reshape(1, 4, 4) * (data["image"] + 1), meta={"a": 1})}


class Paste(MapTransform, Randomizable):
    """A square at a drawn place in most images; the others find none."""

    def __init__(self) -> None:
        super().__init__("image")

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        result = dict(data) | {"clean": data["image"].clone(), "target": int(self.R.rand() < 0.7)}
        if result["target"]:
            row, column = self.R.randint(0, 3, 2)
            result["image"] = data["image"].clone()
            result["image"][:, row : row + 2, column : column + 2] += 50.0
        return result


class Encoder:
    """Mean and largest value of an image, and how many images were asked for."""

    def __init__(self) -> None:
        self.images = 0

    def features(self, image: Tensor) -> Tensor:
        assert type(image) is Tensor and not torch.is_grad_enabled()
        self.images += len(image)
        return torch.stack([image.mean((1, 2, 3)), image.amax((1, 2, 3))], 1)


def dataset(**settings: Any) -> AnomalyDataset:
    return AnomalyDataset([{"image": i} for i in range(NUMBER)], MakeImage(), Paste(), 5, progress=False, **settings)


def epochs(source: Any, number: int = EPOCHS, workers: int = 0, **settings: Any) -> list[dict[str, Any]]:
    """Batches of several epochs, as a training sees them."""
    sampler = EpochSampler(source, seed=1, **settings)
    loader = DataLoader(source, batch_size=3, sampler=sampler, num_workers=workers)
    batches = []
    for epoch in range(number):
        sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def by_hand(batch: dict[str, Any]) -> np.ndarray:
    """Features (B, 2, 2) of a batch of images, clean ones first."""
    rows = []
    for clean, image in zip(batch["clean"].numpy(), batch["image"].numpy(), strict=True):
        rows.append([[sum(x.ravel().tolist()) / 16, max(x.ravel().tolist())] for x in (clean, image)])
    return np.array(rows)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 64), (0, 2), (2, 3)])
def test_epoch_by_epoch_as_encoded_on_the_fly(workers: int, batch_size: int) -> None:
    encoder = Encoder()
    encoded = EncodedDataset(dataset(), encoder, EPOCHS, batch_size, workers, progress=False)
    assert len(encoded) == NUMBER and encoder.images == 2 * EPOCHS * NUMBER
    given, expected = epochs(encoded, workers=workers), epochs(dataset())
    assert encoder.images == 2 * EPOCHS * NUMBER, "nothing is encoded afterwards"
    places = []
    for batch, images in zip(given, expected, strict=True):
        assert torch.equal(batch["index"], images["index"]) and torch.equal(batch["target"], images["target"])
        np.testing.assert_allclose(batch["features"].numpy(), by_hand(images), rtol=1e-6)
        same = (batch["features"][:, 0] == batch["features"][:, 1]).all(1)
        assert torch.equal(same, batch["target"] == 0), "clean ones first, and where nothing was pasted alike"
        places += batch["features"][:, 1].tolist()
    assert len({tuple(place) for place in places}) > 2 * NUMBER, "other anomalies in each epoch"


def test_variants_come_again_when_all_were_shown() -> None:
    encoded = EncodedDataset(dataset(), Encoder(), 2, progress=False)
    for index in range(NUMBER):
        for epoch in range(6):
            given, first = encoded[epoch * NUMBER + index], encoded[epoch % 2 * NUMBER + index]
            assert torch.equal(given["features"], first["features"]) and given["target"] == first["target"]
            assert given["index"] == index
    assert any(not torch.equal(encoded[i]["features"], encoded[i + NUMBER]["features"]) for i in range(NUMBER))


@pytest.mark.parametrize("kind", ["images", "features"])
def test_going_through_it_ends_and_counts_from_the_end(kind: str) -> None:
    source = dataset() if kind == "images" else EncodedDataset(dataset(), Encoder(), 3, progress=False)
    assert [sample["index"] for sample in source] == list(range(NUMBER))
    for key, value in source[-1].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(source[NUMBER - 1][key]))
    with pytest.raises(IndexError, match="index -8 is out of range for 7 items"):
        source[-8]


def test_it_tells_of_its_source() -> None:
    source = dataset()
    encoded = EncodedDataset(source, Encoder(), 2, progress=False)
    assert encoded.data is source.data and encoded.is_random
    assert not EncodedDataset(source, Encoder(), 1, progress=False).is_random
    assert not EncodedDataset(dataset(fixed=True), Encoder(), 2, progress=False).is_random


@pytest.mark.parametrize("workers", [0, 1])
def test_the_random_state_of_the_run_does_not_know_of_it(workers: int) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    encode_dataset(dataset(), Encoder(), 2, num_workers=workers, progress=False)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]


def test_processes_share_the_features() -> None:
    encoded = EncodedDataset(dataset(), Encoder(), 2, progress=False)
    parts = [epochs(encoded, 1, shuffle=False, num_replicas=2, rank=rank) for rank in range(2)]
    assert sorted(index for part in parts for batch in part for index in batch["index"].tolist()) == list(range(NUMBER))


def test_no_variants_are_the_images_themselves() -> None:
    source = dataset()
    assert encode_dataset(source, Encoder(), 0) is source
    assert isinstance(encode_dataset(source, Encoder(), 1, progress=False), EncodedDataset)


class Layers(Encoder):
    """Two maps of an image, of different sizes."""

    def features(self, image: Tensor) -> Any:
        return [image * 2, super().features(image)]


def images_alone() -> AnomalyDataset:
    return AnomalyDataset([{"image": i} for i in range(NUMBER)], MakeImage(), progress=False)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 64), (1, 3)])
def test_maps_of_images_that_nothing_changes(workers: int, batch_size: int) -> None:
    encoder = Layers()
    encoded = EncodedDataset(images_alone(), encoder, 1, batch_size, workers, progress=False, keys=["image"])
    assert encoder.images == NUMBER and not encoded.is_random
    given, expected = epochs(encoded, workers=workers), epochs(images_alone())
    assert encoder.images == NUMBER, "nothing is encoded afterwards, in any epoch"
    for batch, images in zip(given, expected, strict=True):
        assert set(batch) == {"features", "index", "image"} and torch.equal(batch["index"], images["index"])
        assert torch.equal(torch.as_tensor(batch["image"]), torch.as_tensor(images["image"]))
        first, second = batch["features"]
        assert torch.equal(first, 2 * torch.as_tensor(images["image"]))
        np.testing.assert_allclose(second.numpy(), by_hand(images | {"clean": images["image"]})[:, 0], rtol=1e-6)


def test_one_tensor_of_one_image() -> None:
    sample = EncodedDataset(images_alone(), Encoder(), 1, progress=False, keys=["image"])[3]
    assert sample["features"].shape == (2,) and sample["index"] == 3


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="variants must be at least 1, got 0"):
        EncodedDataset(dataset(), Encoder(), 0)
    encoder = ConvolutionalEncoder(nn.Conv2d(1, 2, 2), 1, (4, 4))
    with pytest.raises(ValueError, match="encoder that is trained too, got 2: give variants=0"):
        encode_dataset(dataset(), EncoderClassifier(encoder, frozen=False), 2)
    assert len(encode_dataset(dataset(), EncoderClassifier(encoder), 2, progress=False)) == NUMBER
