# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from published_lite import published, radiograph

from monai_anomaly.networks.pretrained import backbone_names, efficientnet_lite_file, load_backbone


@pytest.mark.parametrize("scale", [0, 1, 2])
@torch.no_grad()
def test_reads_the_blocks_of_the_published_network(scale: int) -> None:
    extractor, reference = load_backbone(f"efficientnet_lite{scale}"), published(scale)
    gray = radiograph(96, 131)
    read: dict[int, torch.Tensor] = {}
    features = reference._swish(reference._bn0(reference._conv_stem(((gray - 127) / 128).expand(-1, 3, -1, -1))))
    for number, block in enumerate(reference._blocks):
        read[number] = features = block(features)
    maps = extractor(gray / 127.5 - 1)
    for features, number in zip(maps, (4, 7, 10), strict=True):
        # of the largest value, since the two ways to scale differ by a rounding of the image
        torch.testing.assert_close(features, read[number], rtol=0, atol=1e-5 * float(read[number].max()))
    assert extractor.num_channels == tuple(read[number].shape[1] for number in (4, 7, 10))
    digest = hashlib.sha256(efficientnet_lite_file(scale).read_bytes()).hexdigest()
    assert extractor.source == {"name": f"efficientnet_lite{scale}", "sha256": digest}


def test_layers_are_numbers_or_names_and_the_file_may_lie_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "copy.pt"
    path.write_bytes(efficientnet_lite_file(0).read_bytes())
    extractor = load_backbone("efficientnet_lite0", layers=[2, "stem"], in_channels=3, weights=path)
    assert [tuple(m.shape) for m in extractor(torch.zeros(1, 3, 32, 32))] == [(1, 24, 8, 8), (1, 32, 16, 16)]
    assert extractor.source["sha256"] == load_backbone().source["sha256"]


def test_weights_may_come_with_a_checkpoint() -> None:
    extractor, image = load_backbone(weights="from_checkpoint"), torch.rand(1, 1, 32, 32)
    assert extractor(image)[0].isnan().all() and extractor.source["sha256"] == ""
    extractor.load_state_dict(load_backbone().state_dict())
    assert torch.equal(extractor(image)[2], load_backbone()(image)[2])


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no backbone 'resnet': take one of efficientnet_lite0, "):
        load_backbone("resnet")
    with pytest.raises(ValueError, match="2 spatial axes, got spatial_dims=3: score volumes slice by slice"):
        load_backbone(spatial_dims=3)
    with pytest.raises(ValueError, match=r"got \['blocks.16'\]"):
        load_backbone(layers=[16])
    with pytest.raises(ValueError, match="copy.pt not found"):
        load_backbone(weights="copy.pt")
    assert backbone_names()[0] == "efficientnet_lite0"
