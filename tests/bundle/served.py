# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A bundle as programs see it that serve it: its ``inference.json`` with random weights, made small."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from fitted_networks import SMALL_FIT, has_backbone, ready
from monai.bundle import ConfigParser

from monai_anomaly.bundle.build import bundle_files, recipe_names
from monai_anomaly.transforms import read_map

NETWORK_SIZES = {2: [32, 32], 3: [16, 32, 16]}
FILE_SIZES = {2: (40, 48), 3: (12, 20, 18)}
CASES = [
    (name, dims)
    for name in recipe_names()
    for dims in NETWORK_SIZES
    if dims == 2 or not has_backbone(bundle_files(name)["configs/inference.json"])
]
SMALL: dict[str, Any] = {
    "hidden_channels": 8,
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_folds": 2,
    "num_steps": 2,
    **SMALL_FIT,
}


class Served:
    """What a program reads of a bundle, and the map that the bundle itself writes of an image.

    Args:
        name: the recipe.
        dims: number of spatial axes.
        folder: for the image and what the bundle writes.
    """

    def __init__(self, name: str, dims: int, folder: Path) -> None:
        files = bundle_files(name)
        self.metadata = files["configs/metadata.json"]
        self.parser = ConfigParser(files["configs/inference.json"])
        self.parser.update({"spatial_size": NETWORK_SIZES[dims], "device": "cpu", **SMALL})
        self.output_dir = folder / "served"
        self.parser.update({"output_dir": str(self.output_dir)})
        torch.manual_seed(0)
        self.network = ready(self.parser).eval()
        for parameter in self.network.parameters():  # members that start alike would all say the same
            parameter.data += 0.02 * torch.randn(parameter.shape)
        draw = np.random.default_rng(0)
        self.voxels = draw.normal(100, 30, FILE_SIZES[dims]).astype(np.float32)
        self.file = folder / "image.nii.gz"
        self.affine = np.array([[0.0, 2, 0, 5], [-1.5, 0, 0, 9], [0, 0, 3, -7], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(self.voxels, self.affine), self.file)

    def part(self, key: str) -> Any:
        """What an id of the configuration makes."""
        return self.parser.get_parsed_content(key)

    def own(self) -> tuple[np.ndarray, float | None]:
        """Map, in the file's axes, and score as the bundle's own evaluator writes them."""
        sample = self.part("preprocessing")({"image": str(self.file)})
        fields = self.part("evaluator#inferer")(sample["image"][None], self.network)
        sample |= {key: value[0] for key, value in fields.items()}
        done = self.part("postprocessing")(sample)
        (written,) = (self.output_dir / "maps").iterdir()
        values = read_map(written)
        shutil.rmtree(self.output_dir)  # what is there afterwards, a program wrote
        return values.reshape(self.voxels.shape), float(done["score"]) if "score" in done else None
