# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The examples in the docstrings of the names that users call first run as they stand."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest

NAMES = (
    "data.sample_dir",
    "data.load_datalist",
    "data.AnomalyDataset",
    "data.DatalistAudit",
    "transforms.LoadImageCheckedd",
    "transforms.ScaleSourceRanged",
    "transforms.RandCutPaste",
    "transforms.RandNSA",
    "networks.nets.DenseAutoencoder",
    "networks.nets.MaskedAutoencoder",
    "networks.blocks.NetworkEnsemble",
    "networks.maps.ReconstructionMap",
    "networks.maps.EnsembleMap",
    "inferers.ReconstructionInferer",
    "inferers.EnsembleInferer",
    "losses.ReconstructionLoss",
    "losses.HeteroscedasticLoss",
    "losses.RepulsionLoss",
    "metrics.compute_image_auroc",
    "metrics.compute_pixel_ap",
    "functional.cka",
    "functional.ssim_error",
    "visualize.overlay_heatmap",
)


def public(path: str) -> Any:
    folder, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"monai_anomaly.{folder}"), name)


@pytest.mark.parametrize("path", NAMES)
def test_the_example_runs(path: str) -> None:
    found = public(path)
    text, name = found.__doc__ or "", found.__name__
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert len(test.examples) > 1, f"{path} shows nothing"
    output: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=output.append)
    assert results.failed == 0, "".join(output)
