# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What the consumer scripts share inside their environments: bundles with weights, images, and the maps to expect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from environment import PASSED, ROOT
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from monai_anomaly.bundle.fitted_copy import fit_copy
from monai_anomaly.data import sample_dir
from monai_anomaly.transforms import read_map

PICTURE, SLICE, VOLUME = "picture", "slice", "volume"
KINDS = (PICTURE, SLICE, VOLUME)
# of volumes, the answer for a bundle whose pre-trained network is not made for them
NOT_ASKED = f"{PASSED}: not asked, its network takes images of two axes"
# small networks for the volume, where a recipe has such a setting
_SMALL: dict[str, Any] = {
    "hidden_channels": 8,
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_folds": 2,
    "num_steps": 2,
}
_VOLUME_SIZE = [16, 32, 16]


def make_images(folder: Path) -> dict[str, Path]:
    """One image of each kind: a radiograph of the embedded sample, the same as one slice of a NIfTI, and a volume."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(sample_dir())
    item = json.loads((source / "datalist.json").read_text(encoding="utf-8"))["testing"][0]
    files = {PICTURE: folder / "radiograph.png", SLICE: folder / "slice.nii.gz", VOLUME: folder / "volume.nii.gz"}
    shutil.copyfile(source / item["image"], files[PICTURE])
    pixels = np.asarray(Image.open(files[PICTURE]).convert("L"), dtype=np.float32).T
    affine = np.array([[0.0, 0.7, 0, -20], [-0.9, 0, 0, 40], [0, 0, 3, 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(pixels[:96, :, None], affine), files[SLICE])
    draw = np.random.default_rng(0)
    volume = np.rint(10 * pixels[8:32, 16:56, None] + draw.normal(0, 40, (24, 40, 20))).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 1.5, 2.5, 1.0])), files[VOLUME])
    return files


def make_bundle(name: str, folder: Path, kind: str) -> Path:
    """A copy of a bundle with weights: those that it ships, or random ones; for volumes, of a small 3D network.

    One that reads features of a pre-trained network is fitted to random images.
    """
    bundle = folder / kind / name
    if bundle.exists():
        shutil.rmtree(bundle)
    if reads_features(name):
        size = read_config(name, "metadata")["network_data_format"]["inputs"]["image"]["spatial_shape"]
        fit_copy(ROOT / "bundles" / name, (1, *size), bundle)
    if not bundle.exists():
        shutil.copytree(ROOT / "bundles" / name, bundle)
    inference, metadata = (bundle / "configs" / f"{config}.json" for config in ("inference", "metadata"))
    settings = json.loads(inference.read_text(encoding="utf-8"))
    weights = bundle / "models" / "model.pt"
    if kind == VOLUME:
        settings |= {key: value for key, value in _SMALL.items() if key in settings} | {"spatial_size": _VOLUME_SIZE}
        inference.write_text(json.dumps(settings), encoding="utf-8")
        described = json.loads(metadata.read_text(encoding="utf-8"))
        for side in described["network_data_format"].values():
            for tensor in side.values():
                tensor["spatial_shape"] = _VOLUME_SIZE
        metadata.write_text(json.dumps(described), encoding="utf-8")
        for trained in (weights, weights.with_name("training.json")):
            trained.unlink(missing_ok=True)
    if not weights.is_file():
        torch.save(_random_weights(settings), weights)
    return bundle


def read_config(name: str, config: str) -> dict[str, Any]:
    """A configuration of a bundle."""
    content: dict[str, Any] = json.loads((ROOT / "bundles" / name / "configs" / f"{config}.json").read_text("utf-8"))
    return content


def reads_features(name: str) -> bool:
    """Whether a bundle reads features of a pre-trained network, which takes images of two axes by default."""
    return "backbone" in read_config(name, "train")


def _random_weights(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = ConfigParser(settings | {"device": "cpu"}).get_parsed_content("network_def")
    for parameter in network.parameters():  # members that start alike would all say the same
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return network.state_dict()


def expected_map(bundle: Path, image: Path, folder: Path) -> np.ndarray:
    """The map that the bundle itself writes of an image, by ``inference.json``; axes (x, y[, z])."""
    shutil.rmtree(folder, ignore_errors=True)
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(bundle),
        dataset_dir=str(image),
        output_dir=str(folder),
        device="$torch.device('cpu')",
    )
    workflow.initialize()
    workflow.run()
    (file,) = (folder / "maps").iterdir()
    values = read_map(file)
    return values.T if file.suffix == ".png" else values.squeeze(-1) if values.shape[-1] == 1 else values


def verdict(found: np.ndarray, expected: np.ndarray, shape: tuple[int, ...] | None = None) -> str:
    """``ok`` where a map is the one expected, else what is wrong with it.

    Args:
        found: map of the consumer.
        expected: map of the bundle itself; a PNG's holds 1/65535 of its range.
        shape: what ``found`` has to have, by default the shape of ``expected``.
    """
    wanted = expected.shape if shape is None else shape
    if found.shape != wanted:
        return f"shape {found.shape}, expected {wanted}"
    if not np.issubdtype(found.dtype, np.floating):
        return f"type {found.dtype}, which holds no map"
    span = float(np.ptp(expected))
    if not span > 0:
        return "the map is constant, which shows nothing"
    difference = float(np.abs(found.reshape(expected.shape) - expected).max())
    return PASSED if difference <= 1e-4 * span else f"differs by {difference:.3g} of {span:.3g}"
