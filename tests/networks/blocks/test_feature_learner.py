# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from small_extractor import SmallExtractor
from torch import Tensor, nn

from monai_anomaly.networks.blocks import FeatureExtractor, FeatureLearner, FeatureOutput, map_shapes


class Doubled(FeatureLearner):
    """Says that all features are twice what they are."""

    def learn(self, image: Tensor, features: list[Tensor]) -> FeatureOutput:
        return FeatureOutput([2 * each for each in features], features)


def test_features_are_made_or_given() -> None:
    extractor = SmallExtractor([2, 3], [1, 2])
    learner, image = Doubled(extractor), torch.rand(2, 1, 4, 4)
    expected = extractor(image)
    asked = extractor.asked
    made, given = learner(image), learner(image, expected)
    assert extractor.asked == asked + 2, "what is given is not made again"
    for output in (made, given):
        for doubled, target, features in zip(*output, expected, strict=True):
            assert torch.equal(target, features) and torch.equal(doubled, 2 * features)
    assert all(torch.equal(a, b) for a, b in zip(learner.features(image), expected, strict=True))


def test_whether_features_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    for compat, frozen in ((None, True), ("upd", False)):
        learner = Doubled(FeatureExtractor(network, ["1"], [0.5], [0.5], compat=compat)).train()
        assert learner.frozen is frozen
        before = learner.features(torch.zeros(2, 1, 8, 8))[0]
        learner.features(torch.rand(2, 1, 8, 8))
        assert torch.equal(learner.eval().features(torch.zeros(2, 1, 8, 8))[0], before) is frozen
    assert Doubled(SmallExtractor([2], [1])).frozen


def test_weights_come_whole_and_from_the_map_around() -> None:
    learner = Doubled(SmallExtractor([2], [1]))
    state = {f"network.{name}": tensor + 1 for name, tensor in learner.state_dict().items()}
    learner.load_state_dict(state)
    assert torch.equal(learner.state_dict()["extractor.layers.0.bias"], state["network.extractor.layers.0.bias"])
    with pytest.raises(RuntimeError, match="the weights do not fit Doubled"):
        learner.load_state_dict({"extractor.layers.0.bias": torch.zeros(2)}, strict=False)


@pytest.mark.parametrize("size", [(8, 5), (8, 6, 4)])
def test_shapes_of_maps(size: tuple[int, ...]) -> None:
    extractor = SmallExtractor([2, 3], [1, 2], len(size), in_channels=3)
    halves = tuple(-(-places // 2) for places in size)
    assert map_shapes(extractor, size) == [(2, *size), (3, *halves)]
