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
    learner, image = Doubled(extractor, 2), torch.rand(2, 1, 4, 4)
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
        learner = Doubled(FeatureExtractor(network, ["1"], [0.5], [0.5], compat=compat), 2).train()
        assert learner.frozen is frozen
        before = learner.features(torch.zeros(2, 1, 8, 8))[0]
        learner.features(torch.rand(2, 1, 8, 8))
        assert torch.equal(learner.eval().features(torch.zeros(2, 1, 8, 8))[0], before) is frozen
    assert Doubled(SmallExtractor([2], [1]), 2).frozen


@pytest.mark.parametrize("axes", [2, 3])
def test_channels_are_standardized_by_all_training_images(axes: int) -> None:
    extractor = SmallExtractor([3, 4], [1, 2], axes)
    learner = Doubled(extractor, axes, standardize=True)
    draw = torch.Generator().manual_seed(0)
    batches = [5 + 3 * torch.rand(4, 1, *[4] * axes, generator=draw) for _ in range(3)]
    image, places = batches[0], (0, *range(2, 2 + axes))
    for made, features in zip(learner.eval()(image).target, extractor(image), strict=True):
        torch.testing.assert_close(made, features, rtol=1e-4, atol=1e-4)  # before any training
    learner.train()
    for batch in batches:
        learner(batch)
    outputs = learner.eval()(image)
    for level, made in enumerate(outputs.target):
        seen = [extractor(batch)[level] for batch in batches]
        mean = sum(each.mean(places, keepdim=True) for each in seen) / 3
        variance = sum(each.var(places, keepdim=True) for each in seen) / 3
        expected = (seen[0] - mean) / (variance + 1e-5).sqrt()
        torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(outputs.prediction[level], 2 * made)
    given = learner(image, extractor(image))
    assert all(torch.equal(a, b) for a, b in zip(given.target, outputs.target, strict=True))


def test_weights_come_whole_and_from_the_map_around() -> None:
    learner = Doubled(SmallExtractor([2], [1]), 2)
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
