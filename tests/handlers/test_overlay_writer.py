# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from evaluation_case import COUNT, dataset, evaluate, phantom
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image

from monai_anomaly.handlers import OverlayWriter
from monai_anomaly.transforms import LoadImageChecked, SaveImageMapd, read_map
from monai_anomaly.visualize import overlay_heatmap


class MapSaver:
    """What the post-processing of a bundle does."""

    def __init__(self, folder: Path) -> None:
        self.save = SaveImageMapd("anomaly_map", folder)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for item in output:
            self.save(item)


def overlays(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("phantom"))


def test_each_map_is_laid_over_its_image_in_one_color_scale(folder: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    evaluate(dataset(folder), [MapSaver(maps), OverlayWriter(tmp_path / "overlays", maps)])
    saved = {path.name.replace("anomaly_map", "overlay"): read_map(path) for path in maps.iterdir()}
    drawn = overlays(tmp_path / "overlays")
    assert set(drawn) == set(saved) and len(drawn) == COUNT
    assert {picture.shape for picture in drawn.values()} == {(24, 36, 3)}, "of the size of the file, rows first"
    evaluate(dataset(folder), [MapSaver(maps), OverlayWriter(tmp_path / "fixed", maps, (0.0, 0.25))])
    for name, picture in overlays(tmp_path / "fixed").items():
        gray = np.asarray(Image.open(folder / "images" / f"{name.rpartition('_')[0].rpartition('_')[0]}.png"))
        expected = overlay_heatmap(gray, saved[name], None, (0.0, 0.25), (0, 255))
        assert np.abs(picture.astype(int) - expected).max() <= 1, "the map's 16 bits and the image's scaling round"


def test_a_calm_image_looks_calm_beside_an_abnormal_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    items = []
    for name, strength in (("calm", 0.1), ("loud", 1.0)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        image = LoadImageChecked()(tmp_path / f"{name}.png")
        items.append({"image": image, "anomaly_map": strength * ramp, "score": torch.zeros(1)})
    calm, loud = run(items, tmp_path).values()
    span = tuple(np.quantile(torch.cat([0.1 * ramp, ramp]).numpy(), (0.005, 0.995)))
    for picture, values in ((calm, 0.1 * ramp), (loud, ramp)):
        expected = overlay_heatmap(pixels, values[0].T, None, span, (0, 255))
        assert np.abs(picture.astype(int) - expected).max() <= 1
    assert np.ptp(calm.astype(int), axis=-1).mean() < 0.5 * np.ptp(loud.astype(int), axis=-1).mean()


def test_of_a_volume_the_slice_of_the_largest_map_is_drawn(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])  # the first axis runs to the left
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
    image = LoadImageChecked()(tmp_path / "scan.nii.gz")
    heat = torch.zeros(1, 6, 5, 4)
    heat[0, 1, 3, 2] = 1.0
    picture = run_once(image, heat, tmp_path)
    plane = np.rot90(values[::-1, :, 2])  # anterior up, the patient's left on the left
    place = np.rot90(heat[0].numpy()[::-1, :, 2])
    assert picture.shape == (5, 6, 3)
    calm = place == 0
    levels = np.rint((plane - values.min()) / np.ptp(values) * 255)
    assert np.abs(picture[calm] - levels[calm][:, None]).max() <= 1
    assert (np.ptp(picture.astype(int), axis=-1) > 0).sum() == 1


def test_a_slice_that_is_a_file_of_its_own_is_drawn_as_a_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((6, 5, 1)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    picture = run_once(LoadImageChecked(2)(tmp_path / "scan.nii.gz"), torch.rand(1, 6, 5), tmp_path)
    assert picture.shape == (5, 6, 3)


def run(items: list[dict[str, Any]], folder: Path) -> dict[str, np.ndarray]:
    """What is drawn of images and their maps, by the name of the file."""
    engine = Engine(lambda engine, batch: items)
    for handler in (MapSaver(folder / "maps"), OverlayWriter(folder / "overlays", folder / "maps")):
        handler.attach(engine)
    engine.run([0])
    return overlays(folder / "overlays")


def run_once(image: MetaTensor, heat: torch.Tensor, folder: Path) -> np.ndarray:
    (picture,) = run([{"image": image, "anomaly_map": heat, "score": torch.zeros(1)}], folder).values()
    return picture


def test_without_a_map_there_is_nothing_to_draw(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"_anomaly_map\.png does not exist: save the maps"):
        evaluate(dataset(folder), [OverlayWriter(tmp_path / "overlays", tmp_path / "maps")])
    assert not overlays(tmp_path / "overlays")
