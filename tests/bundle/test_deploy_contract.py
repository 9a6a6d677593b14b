# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every recipe in MONAI Deploy's ``MonaiBundleInferenceOperator`` (App SDK 4.0.0), without the SDK.

``tools/consumers/monai_deploy.py`` runs the real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import ensure_tuple
from served import CASES, Served

# what the operator casts or packs by the type of an output; all other tensors it hands on as they are
PACKED = {"image": "uint8", "series": "array", "tuples": "array", "probabilities": "classes"}


def kept(compose: Compose, *names: str) -> Compose:
    """The transforms whose class name holds none of the names."""
    return Compose([t for t in compose.transforms if not any(name in type(t).__name__ for name in names)])


def run(served: Served, image: Any, metadata: dict[str, Any]) -> np.ndarray:
    """What the operator emits for an image that another operator has loaded."""
    preprocessing = kept(served.part("preprocessing"), "LoadImage", "SaveImage")
    postprocessing = kept(served.part("postprocessing"), "LoadImage", "SaveImage")
    assert isinstance(preprocessing.transforms[0], MapTransform)
    assert isinstance(postprocessing.transforms[0], MapTransform)
    with torch.no_grad():
        given = MetaTensor.ensure_torch_and_prune_meta(image, metadata)
        prepared = preprocessing({"image": given})["image"]
        output = ensure_tuple(served.part("inferer")(inputs=prepared[None], network=served.network))[0]
        done = postprocessing({"pred": output, "image": prepared})
    ((name, output_format),) = served.metadata["network_data_format"]["outputs"].items()
    assert output_format["type"] not in PACKED, "the operator would cast or pack it"
    assert isinstance(done[name], torch.Tensor), "the operator hands on tensors alone"
    emitted: np.ndarray = done[name].cpu().numpy()
    return emitted


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}d")
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Served:
    """Every recipe in 2D and 3D."""
    return Served(*request.param, tmp_path)


def test_maps_survive_and_fit_the_image(served: Served) -> None:
    expected, _ = served.own()
    # of DICOM, whose axes the operator turns: no channel, and one radiograph is a volume of one slice
    voxels = served.voxels if served.voxels.ndim == 3 else served.voxels[..., None]
    place = {"affine": served.affine, "original_affine": served.affine, "spatial_shape": np.array(voxels.shape)}
    series = run(served, voxels, {**place, "original_channel_dim": "no_channel", "row_pixel_spacing": 2.0})
    # of the SDK's loader of NIfTI: an array and nothing else
    array = run(served, voxels, {"original_channel_dim": "no_channel"})
    for found in (series, array):
        assert found.dtype == np.float32 and found.shape == served.voxels.shape
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))
    assert not served.output_dir.exists(), "what is written, another operator writes"
