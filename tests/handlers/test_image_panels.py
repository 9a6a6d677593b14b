# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_case import SIZE, Blurrer, dataset, evaluate, infer, phantom
from ignite.engine import Engine, Events
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_anomaly.handlers import AnomalyImagePanels
from monai_anomaly.handlers.image_rows import ImageRows, Row
from monai_anomaly.visualize import overlay_heatmap, to_gray


def pictures(folder: Path, tag: str = "anomaly maps") -> list[tuple[int, np.ndarray]]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    found = events.Images(tag)
    return [(event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))) for event in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("data"))


def test_the_first_images_are_in_the_event_file(folder: Path, tmp_path: Path) -> None:
    samples, panels = dataset(folder), AnomalyImagePanels(tmp_path, num_images=3)
    evaluate(samples, [panels])
    evaluate(samples, [panels], [4, 3])
    panels.close()
    (first_step, first), (second_step, second) = pictures(tmp_path)
    width, height = SIZE
    assert (first_step, second_step) == (0, 1)
    assert first.shape == (3 * height, 3 * width, 3) and second.shape == (2 * height, 3 * width, 3)
    planes = []
    for i in range(3):
        image = samples[i]["image"].as_tensor()
        result = infer(image[None], Blurrer())
        tensors = (image, result["reconstruction"][0], result["anomaly_map"][0], samples[i]["label"].as_tensor())
        planes.append([tensor[0].numpy().T for tensor in tensors])
    span = float(np.min([p[2] for p in planes])), float(np.max([p[2] for p in planes]))
    for i, (image, reconstruction, heat, label) in enumerate(planes):
        row = first[i * height : (i + 1) * height].astype(int)
        assert np.abs(row[:, :width] - to_gray(image, (-1, 1))).max() <= 1
        assert np.abs(row[:, width : 2 * width] - to_gray(reconstruction, (-1, 1))).max() <= 1
        expected = overlay_heatmap(image, heat, label if label.any() else None, span, (-1, 1))
        assert np.abs(row[:, 2 * width :] - expected).max() <= 1


def test_images_of_several_sizes_a_constant_map_and_volumes(tmp_path: Path) -> None:
    shapes = [(1, 5, 8), (1, 9, 4), (1, 6, 7, 3)]
    items = [{"image": torch.ones(shape), "anomaly_map": torch.full(shape, 0.5)} for shape in shapes]
    engine = Engine(lambda _, batch: [batch])
    panels = AnomalyImagePanels(tmp_path, tag="tag")
    panels.attach(engine)
    engine.run(items, max_epochs=2)
    panels.close()
    found = pictures(tmp_path, "tag")
    assert [step for step, _ in found] == [1, 2]
    assert found[0][1].shape == (8 + 4 + 7, 18, 3), "below each other, without reconstructions, padded to the widest"


def test_refuses() -> None:
    with pytest.raises(ValueError, match="num_images must be positive, got 0"):
        AnomalyImagePanels("nowhere", num_images=0)


class Remembered(ImageRows):
    """Keeps the rows it is given."""

    def write(self, engine: Engine, rows: list[Row]) -> None:
        self.rows = rows


def run_plain(items: list[dict[str, Any]], edit: Callable[[Any], Any] = lambda output: output) -> list[Row]:
    engine, remembered = Engine(lambda _, batch: edit(batch)), Remembered("unused")
    remembered.attach(engine)
    engine.add_event_handler(Events.STARTED, lambda _: None)
    engine.run([items[i : i + 2] for i in range(0, len(items), 2)])
    return remembered.rows


def test_rows_of_a_plain_engine() -> None:
    items = [{"score": torch.tensor([i / 3]), "index": torch.tensor(4 - i), "target": i - 1} for i in range(5)]
    rows = run_plain(items)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["target"] for row in rows] == [None, None, 1, 0, None]
    assert [row["score"] for row in rows] == [float(np.float32((4 - i) / 3)) for i in range(5)]
    assert all(row["image"] == "" and row["patient"] is None for row in rows)
    assert [row["score"] for row in run_plain([{"score": 1.5}], lambda batch: batch[0])] == [1.5], "one dictionary"


def test_a_subclass_must_write(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError):
        ImageRows(tmp_path).write(Engine(lambda *_: None), [])
