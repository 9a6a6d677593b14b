# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every recipe as MONAI Label 0.8.5 serves it, without MONAI Label: what ``BundleInferTask`` reads, drops and adds.

``tools/consumers/monai_label.py`` asks the real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.transforms import SaveImaged
from served import CASES, Served

from monai_anomaly.bundle.build import bundle_files, recipe_names


def ask(served: Served, inferer: Any) -> dict[str, Any]:
    """Pre-processing, inferer and post-processing, one after the other and each transform by itself."""
    data: dict[str, Any] = {"image": str(served.file), "image_path": str(served.file), "device": "cpu"}
    data |= served.part("displayable_configs")
    for transform in served.part("preprocessing").transforms:
        data = transform(data)
    with torch.no_grad():
        outputs = inferer(data["image"][None], served.network)
    data["pred"] = decollate_batch(outputs)[0] if isinstance(outputs, dict) else outputs[0]
    for transform in served.part("postprocessing").transforms:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    return restored(data)


def restored(data: dict[str, Any]) -> dict[str, Any]:
    """MONAI Label's own last step: the nearest neighbor to the file's size, of what it takes for (C, *S)."""
    size = data["pred"].shape[1:]
    wanted = tuple(int(length) for length in data["image"].meta["spatial_shape"][-len(size) :])
    assert tuple(size) == wanted, "it would be resized by the nearest neighbor"
    return data | {"pred": data["pred"] if data["pred"].ndim <= 3 else data["pred"][0]}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}d")
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Served:
    """Every recipe in 2D and 3D."""
    return Served(*request.param, tmp_path)


def test_maps_are_those_of_the_bundle_in_the_size_of_the_file(served: Served) -> None:
    expected, score = served.own()
    answer = ask(served, served.part("inferer"))
    found = answer["pred"]
    assert isinstance(found, MetaTensor) and found.dtype == torch.float32 and np.ptp(expected) > 0
    assert tuple(found.shape) == served.voxels.shape, "no axis for channels"
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5 * np.ptp(expected))
    np.testing.assert_allclose(np.asarray(found.affine), served.affine, atol=1e-6)
    assert not served.output_dir.exists(), "a request writes nothing into the bundle"
    if served.part("score_map").reduction is not None:
        assert answer["result"]["score"] == pytest.approx(score, rel=1e-5)
    else:
        assert "result" not in answer, "a score that is not made of the map cannot be had of it"


def test_an_inferer_that_names_its_fields_is_taken_as_well(served: Served) -> None:
    expected, score = served.own()
    answer = ask(served, served.part("map_inferer"))
    np.testing.assert_allclose(answer["pred"].numpy(), expected, atol=1e-5 * np.ptp(expected))
    assert answer["result"]["score"] == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("name", recipe_names())
def test_the_answer_is_a_file_that_holds_floats(name: str) -> None:
    files = bundle_files(name)
    assert files["configs/inference.json"]["displayable_configs"] == {"result_extension": ".nii.gz"}
    first = next(iter(files["configs/metadata.json"]["network_data_format"]["outputs"]))
    assert first == "pred", "the first output is the key of the prediction"
