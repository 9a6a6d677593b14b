# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes through the bundle of image-conditioned diffusion: slice by slice with 2D networks, whole with 3D ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from monai_anomaly.bundle.build import bundle_files
from monai_anomaly.data import make_phantom
from monai_anomaly.inferers import RestorationInferer
from monai_anomaly.transforms import LoadImageChecked, SaveRestorationd, ScaleSourceRange, read_map, resize_to_source
from monai_anomaly.utils import Keys

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "diffusion_restoration"
TINY: dict[str, Any] = {
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_folds": 2,
    "num_steps": 2,
    "device": "$torch.device('cpu')",
}


def run(configs: list[str], **overrides: Any) -> None:
    """What ``monai.bundle run`` does."""
    files = [str(BUNDLE / "configs" / f"{config}.json") for config in configs]
    workflow = ConfigWorkflow(
        config_file=files, workflow_type="inference", **{"bundle_root": str(BUNDLE), **TINY, **overrides}
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def network_of(size: list[int], weights: Path) -> Any:
    """The bundle's network with random weights, which it writes."""
    parser = ConfigParser(bundle_files("diffusion_restoration")["configs/inference.json"])
    parser.update({**TINY, "spatial_size": size})
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").eval()
    for parameter in network.parameters():  # some begin at zero
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), weights)
    return network


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes in an oblique, anisotropic, left-handed geometry, with empty slices at one side of each axis."""
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom(folder, 3, (20, 18, 16), num_training=0, num_unlabeled=0, num_validation=0, num_testing=2, seed=1)
    for place, path in enumerate(sorted((folder / "images").iterdir())):
        original = nib.load(path)
        voxels = np.asarray(original.dataobj)
        for axis in range(3):  # empty: each its own number of slices
            voxels[(slice(None),) * axis + (slice(0, 1 + axis + place),)] = 0
        nib.save(nib.Nifti1Image(voxels, original.affine), path)
    return folder / "images"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A 2D network and its weights."""
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    return network_of([16, 16], weights), weights


def written(folder: Path, source: Path) -> Path:
    """The one file that was written for an image."""
    (path,) = (path for path in folder.iterdir() if path.name.startswith(source.name.split(".")[0] + "_"))
    return path


def check_geometry(output: Path, source: Path) -> None:
    """Map and restoration lie where the volume lies, and the restoration has its units."""
    original = nib.load(source)
    for kind in ("maps", "restored"):
        stored = nib.load(written(output / kind, source))
        assert stored.shape == original.shape and stored.get_data_dtype() == np.float32
        assert np.allclose(stored.affine, original.affine, atol=1e-5)
        assert np.isfinite(np.asarray(stored.dataobj)).all() and np.asarray(stored.dataobj).std() > 0
    restored, voxels = (np.asarray(nib.load(p).dataobj) for p in (written(output / "restored", source), source))
    assert voxels.min() - 1e-3 <= restored.min() and restored.max() <= voxels.max() * (1 + 1e-5)
    assert np.ptp(restored) > 3  # not [-1, 1]


def slice_by_slice(network: Any, source: Path, axis: int) -> tuple[Any, dict[str, torch.Tensor]]:
    """The image as it is shown to the network, and the oracle: each slice alone, resized alone, empty ones left out."""
    image = ScaleSourceRange()(LoadImageChecked(3)(source))
    maps, restored = [], []
    for place in range(image.shape[axis + 1]):
        plane = image.as_tensor().select(axis + 1, place)
        plane = torch.nn.functional.interpolate(plane[None], (16, 16), mode="area")
        if plane.min() == plane.max():
            maps.append(torch.zeros_like(plane[0]))
            restored.append(plane[0])
            continue
        result = RestorationInferer()(plane, network)
        maps.append(result["anomaly_map"][0])
        restored.append(result["reconstruction"][0])
    return image, {"maps": torch.stack(maps, axis + 1), "restored": torch.stack(restored, axis + 1)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_slice_by_slice(phantom: Path, flat: tuple[Any, Path], tmp_path: Path, axis: int) -> None:
    network, weights = flat
    files = {"dataset_dir": str(phantom), "checkpoint": str(weights), "output_dir": str(tmp_path)}
    run(["inference", "volumes"], **files, spatial_size=[16, 16], slice_axis=axis, slices_at_once=5)
    with open(tmp_path / "scores.csv", newline="") as stream:
        scores = {row["image"]: float(row["score"]) for row in csv.DictReader(stream)}
    sources = sorted(phantom.iterdir())
    assert sorted(scores) == [path.name for path in sources]
    kept = 0
    for source in sources:
        check_geometry(tmp_path, source)
        image, expected = slice_by_slice(network, source, axis)
        kept += sum(bool(one.any()) for one in expected["maps"].unbind(axis + 1))
        assert scores[source.name] == pytest.approx(float(expected["maps"].mean()), rel=1e-3)
        # each slice resized to the file's plane alone: nothing runs from slice to slice
        plane = [size for i, size in enumerate(image.shape[1:]) if i != axis]
        for kind, values in expected.items():
            stored = read_map(written(tmp_path / kind, source))
            low, high = image.meta["source_range"]
            for place, one in enumerate(values.unbind(axis + 1)):
                back = torch.nn.functional.interpolate(one[None], plane, mode="bilinear", align_corners=False)[0, 0]
                if kind == "restored":
                    back = (back + 1) / 2 * (high - low) + low
                difference = np.abs(stored.take(place, axis) - back.numpy())
                assert difference.max() < 2e-3 * max(1.0, float(values.abs().max())) * (
                    high - low if kind == "restored" else 1
                )
    assert len(list((tmp_path / "restorations").iterdir())) == kept  # one a slice that is not empty


def test_a_killed_run_goes_on_slice_by_slice(
    phantom: Path, flat: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = flat
    source = min(phantom.iterdir())
    files = {"dataset_dir": str(source), "checkpoint": str(weights), "output_dir": str(tmp_path)}
    options = {"spatial_size": [16, 16], "slices_at_once": 4}
    asked: list[int] = []
    restore = RestorationInferer.__call__

    def call(self: RestorationInferer, inputs: Any, network: Any) -> Any:
        asked.append(len(inputs))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return restore(self, inputs, network)

    with monkeypatch.context() as patched:
        patched.setattr(RestorationInferer, "__call__", call)
        with pytest.raises((KeyboardInterrupt, RuntimeError)):
            run(["inference", "volumes"], **files, **options)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "restorations").iterdir()}
    assert len(kept) == 8 and not (tmp_path / "maps").exists()
    run(["inference", "volumes"], **files, **options)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert len(list((tmp_path / "restorations").iterdir())) > 8
    check_geometry(tmp_path, source)


def test_whole_volumes_with_a_3d_network(phantom: Path, tmp_path: Path) -> None:
    size = [16, 16, 16]
    network = network_of(size, tmp_path / "model.pt")
    output = tmp_path / "out"
    files = {"dataset_dir": str(phantom), "checkpoint": str(tmp_path / "model.pt"), "output_dir": str(output)}
    run(["inference"], **files, spatial_size=size)
    for source in phantom.iterdir():
        check_geometry(output, source)
        image = ScaleSourceRange()(LoadImageChecked(3)(source))
        small = torch.nn.functional.interpolate(image.as_tensor()[None], size, mode="area")
        expected = RestorationInferer()(small, network)["anomaly_map"][0]
        back = resize_to_source(expected, image)
        assert np.abs(read_map(written(output / "maps", source)) - back[0].numpy()).max() < 1e-3


def test_rgb_pictures_are_restored_in_color(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    parser = ConfigParser(bundle_files("diffusion_restoration")["configs/inference.json"])
    parser.update({**TINY, "spatial_size": [16, 16], "in_channels": 3})
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    files = {"dataset_dir": str(tmp_path / "images"), "checkpoint": str(tmp_path / "model.pt")}
    run(["inference"], **files, output_dir=str(tmp_path / "out"), spatial_size=[16, 16], in_channels=3)
    (path,) = (tmp_path / "out" / "restored").iterdir()
    with Image.open(path) as stored:
        assert stored.mode == "RGB" and stored.size == (24, 20)
    (path,) = (tmp_path / "out" / "maps").iterdir()
    assert read_map(path).shape == (20, 24)


@pytest.mark.parametrize("place", [1, 2])
def test_a_real_volume(shared_data: Path, flat: tuple[Any, Path], tmp_path: Path, place: int) -> None:
    source = shared_data / "brain" / "volumes" / f"brats_2013_pat000{place}_1_flair_2mm.nii.gz"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    _, weights = flat
    files = {"dataset_dir": str(source), "checkpoint": str(weights), "output_dir": str(tmp_path)}
    run(["inference", "volumes"], **files, spatial_size=[16, 16], slices_at_once=32)
    check_geometry(tmp_path, source)
    voxels = np.asarray(nib.load(source).dataobj)
    shown = [z for z in range(voxels.shape[2]) if np.ptp(voxels[..., z]) > 0]
    assert 0 < len(shown) < voxels.shape[2]
    assert len(list((tmp_path / "restorations").iterdir())) == len(shown)
    stored = read_map(written(tmp_path / "maps", source))
    assert [z for z in range(stored.shape[2]) if stored[..., z].any()] == shown


def reason(configs: list[str], **overrides: Any) -> str:
    """The innermost error of a run that must fail."""
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run(configs, **overrides)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, ValueError)
    return str(error)


def test_what_is_no_volume_is_named(phantom: Path, flat: tuple[Any, Path], tmp_path: Path) -> None:
    _, weights = flat
    both = ["inference", "volumes"]
    files = {"checkpoint": str(weights), "output_dir": str(tmp_path / "out"), "spatial_size": [16, 16]}
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "flat.png")
    text = reason(both, dataset_dir=str(tmp_path / "flat.png"), **files)
    assert "flat.png has 2 spatial axes" in text and "no configs/volumes.json" in text
    voxels = np.zeros((16, 16, 4), np.float32)
    voxels[2, 3, 1] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "holes.nii.gz")
    assert "holes.nii.gz holds NaN" in reason(both, dataset_dir=str(tmp_path / "holes.nii.gz"), **files)
    text = reason(["inference"], dataset_dir=str(phantom), **files)
    assert "has 3 spatial axes" in text and "or configs/volumes.json" in text
    for axis in (-1, 3):
        text = reason(both, dataset_dir=str(phantom), **files, slice_axis=axis)
        assert f"axis must be one of (0, 1, 2), got {axis} (in a bundle: slice_axis)" in text
    network_of([16, 16, 16], tmp_path / "solid.pt")
    solid = {"checkpoint": str(tmp_path / "solid.pt"), "spatial_size": [16, 16, 16]}
    text = reason(both, dataset_dir=str(phantom), **{**files, **solid})
    assert "two numbers that the 2D network was trained with, got [16, 16, 16]" in text
    assert "at least 1 slice, got 0" in reason(both, dataset_dir=str(phantom), **files, slices_at_once=0)


def test_the_restoration_is_saved_by_the_part_for_it() -> None:
    parser = ConfigParser(bundle_files("diffusion_restoration")["configs/inference.json"])
    savers = parser.get_parsed_content("postprocessing").transforms
    assert isinstance(savers[-1], SaveRestorationd) and savers[-1].keys == (Keys.RECONSTRUCTION,)
